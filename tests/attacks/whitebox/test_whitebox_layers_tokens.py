"""The embedding's decoder, against dense matrices and plain loops."""

import numpy as np
import pytest
import torch
from helpers_deeper import fleet_problem, sentences, text_fleet, tiny_roberta
from sklearn.metrics import roc_auc_score

from mico_competition import ModelPool
from mico_competition.attacks.whitebox.layers import model_signals, tokens
from mico_competition.attacks.whitebox.layers.frame import make_frame
from mico_competition.attacks.whitebox.layers.model_signals import signals_of, token_rows
from mico_competition.attacks.whitebox.layers.start import decay, halfway, known_start, near_base
from mico_competition.attacks.whitebox.layers.tokens import (
    Held,
    adam_directions,
    decode_clipped,
    decode_rows,
    least_movement,
    shared_start,
)
from mico_competition.attacks.whitebox.layers.whitenings import first_tokens
from mico_competition.data.arrays import TokenDataset

IDS = torch.tensor([[0, 7, 9, 7, 1], [0, 5, 1, 1, 1], [0, 9, 9, 5, 6]])
MASK = (IDS != 1).int()


def dense(held, directions):
    """float64[N, V, H], each record's direction in each row."""
    out = torch.zeros(held.records, len(held.tokens), directions.shape[1], dtype=torch.float64)
    out[held.record, held.token] = directions.double()
    return out


def test_who_holds_what():
    held = Held.of(IDS, MASK)
    assert held.tokens.tolist() == [0, 5, 6, 7, 9] and held.records == 3
    pairs = list(zip(held.record.tolist(), held.tokens[held.token].tolist()))
    assert pairs == [(0, 0), (0, 7), (0, 9), (1, 0), (1, 5), (2, 0), (2, 5), (2, 6), (2, 9)]


def test_sums_over_positions_leave_padding_out():
    held = Held.of(IDS, MASK)
    values = torch.randn(3, 5, 4)
    expected = [
        values[record][IDS[record] == held.tokens[token]].sum(0)
        for record, token in zip(held.record.tolist(), held.token.tolist())
    ]
    sums = torch.zeros(len(held.record), 4)
    for rows in (torch.tensor([2, 0]), torch.tensor([1])):  # in any order
        held.add_to(sums, IDS[rows], values[rows], rows)
    assert torch.allclose(sums, torch.stack(expected))


@pytest.mark.parametrize("width", [1, 6])
def test_rows_are_decoded_as_by_a_dense_solve(width, monkeypatch):
    torch.manual_seed(0)
    data = sentences(20)
    held = Held.of(data.input_ids, data.attention_mask)
    directions = torch.randn(len(held.record), width)
    moved = torch.randn(len(held.tokens), width)
    all_of = dense(held, directions)
    for most in (3, 64):
        monkeypatch.setattr(tokens, "MOST_HOLDERS", most)
        few = torch.bincount(held.token) <= most  # tokens that more records hold do not count
        kernel = torch.einsum("ivh,jvh->ij", all_of[:, few], all_of[:, few])
        trace = torch.einsum("ivh,vh->i", all_of[:, few], moved[few].double())
        scale = kernel.diagonal()[kernel.diagonal() > 0].mean()
        for ridge, got in zip((0.05, 1.0), decode_rows(held, directions, moved, (0.05, 1.0))):
            system = kernel / scale + ridge * torch.eye(20)
            expected = torch.linalg.solve(system, trace / scale)
            assert torch.allclose(got, expected, atol=2e-2 * float(expected.abs().max()))


def test_directions_are_divided_by_all_holders_gradients_as_in_adam():
    held = Held.of(IDS, MASK)
    gradients = torch.randn(len(held.record), 3, dtype=torch.float64)
    strength = torch.tensor([1.0, 0.5, 2.0])
    found = adam_directions(held, gradients, strength)
    of_nine = (held.tokens[held.token] == 9).nonzero()[:, 0]  # held by records 0 and 2
    first, second = gradients[of_nine[0]], 2 * gradients[of_nine[1]]
    assert torch.allclose(found[of_nine[0]], first / (first**2 + second**2).sqrt())
    alone = (held.tokens[held.token] == 6).nonzero()[0, 0]  # the row moves by the sign
    assert torch.allclose(found[alone], gradients[alone].sign())
    assert (adam_directions(held, 0 * gradients, strength) == 0).all()


@pytest.mark.parametrize("common", [1024, 2])
def test_clipped_directions_are_decoded_as_by_a_dense_solve(common, monkeypatch):
    monkeypatch.setattr(tokens, "COMMON", common)  # all records hold token 0, the first
    held = Held.of(IDS, MASK)
    gradients, moved = torch.randn(len(held.record), 3), torch.randn(len(held.tokens), 3)
    lengths = torch.tensor([1.0, 2.0, 0.5])
    rows = (dense(held, gradients) / lengths[:, None, None])[:, 0 if common > 2 else 1 :]
    weights = moved[len(held.tokens) - rows.shape[1] :].double()
    kernel, trace = rows.flatten(1) @ rows.flatten(1).T, (rows * weights).sum((1, 2))
    for ridge, found in zip(
        (0.5, 2.0), decode_clipped(held, gradients, lengths, moved, (0.5, 2.0))
    ):
        expected = torch.linalg.solve(kernel + ridge * torch.eye(3).double(), trace)
        assert torch.allclose(found.double(), expected, atol=1e-3)
    nothing = decode_clipped(held, 0 * gradients, 0 * lengths, moved, (1.0,))
    assert (nothing[0] == 0).all()


def test_records_are_found_by_the_rows_that_moved():
    data, inside = sentences(24), torch.arange(24) % 2 == 0
    held = Held.of(data.input_ids, data.attention_mask)
    ones = torch.ones(len(held.record), 1)
    moved = torch.zeros(len(held.tokens), 1)
    moved.index_add_(0, held.token[inside[held.record]], ones[inside[held.record]])
    (found,) = decode_rows(held, ones, moved, (0.01,))
    assert found[inside].min() > 2 * found[~inside].max()
    least = least_movement(held, moved[:, 0].sign())  # each holds one token of its own
    assert least[inside].min() > least[~inside].max()


def test_least_movement_is_that_of_a_loop():
    held, lengths = Held.of(IDS, MASK), torch.tensor([5.0, 0.0, 2.0, 3.0, 1.0])
    expected = torch.tensor([1.0, 0.0, 0.0]).double().add(0.02).log()
    assert torch.allclose(least_movement(held, lengths), expected, atol=1e-6)
    assert least_movement(held, 0 * lengths).isfinite().all()


def test_the_start_is_where_untouched_rows_lie():
    torch.manual_seed(1)
    start = torch.randn(30, 8)
    moves = torch.rand(12, 30) < 0.6
    moves[:3, :25], moves[:, 25:] = False, True  # the last five moved in every model
    rows = start + moves[:, :, None] * torch.randn(12, 30, 8)
    found = shared_start(rows)
    assert torch.allclose(found[:25], start[:25])
    assert torch.allclose(found[25:], rows[:, 25:].mean(0))


def test_models_without_a_common_start_get_their_mean():
    rows = torch.randn(8, 5, 16)
    assert torch.allclose(shared_start(rows), rows.mean(0))
    with pytest.raises(ValueError, match="3 models or more"):
        shared_start(rows[:2])


def test_the_base_is_found_from_fine_tuned_models_alone_and_members_by_it():
    models, data, is_member, base = text_fleet()
    problem = fleet_problem(models, data, is_member, 8)
    frame = make_frame(problem.source, torch.arange(10).numpy())
    truth = token_rows(base, frame.held, None)
    first = int(torch.searchsorted(frame.held.tokens, 5))  # tokens that one record alone holds
    untouched = torch.from_numpy((~is_member).sum(0) >= 3).nonzero()[:, 0] + first
    assert len(untouched) > 18
    assert torch.allclose(frame.token_start[untouched], truth[untouched], atol=1e-6)
    assert frame.start["classifier.dense"].shape == (16, 17)
    signals = signals_of(models[0], frame)
    inside = is_member[0]
    for name, least in (("tokens movement", 0.95), ("tokens direction", 0.7), ("tokens least", 1)):
        for values in signals[name].values():
            assert values.shape == (24,) and roc_auc_score(inside, values) >= least, name


def test_a_known_base_is_the_start_of_all_that_it_explains():
    models, data, is_member, base = text_fleet()
    problem = fleet_problem(models, data, is_member, 8)
    problem.source.base = base
    frame = make_frame(problem.source, torch.arange(10).numpy())
    assert torch.equal(frame.token_start, token_rows(base, frame.held, None))
    layer = base.roberta.encoder.layer[0].output.dense
    name = "roberta.encoder.layer.0.output.dense"
    assert torch.equal(frame.start[name][:, :-1], layer.weight)
    passed = halfway(models[0], frame.base).get_parameter(f"{name}.weight")
    assert torch.allclose(passed, (models[0].get_parameter(f"{name}.weight") + layer.weight) / 2)
    signals = signals_of(models[0], frame)
    for values in signals["tokens direction"].values():
        assert roc_auc_score(is_member[0], values) == 1


def test_a_new_head_has_no_start_and_weight_decay_is_undone():
    models, data, _, base = text_fleet(total=2)
    model = models[0]
    held = Held.of(data.input_ids, data.attention_mask)
    with torch.no_grad():
        model.classifier.dense.weight.normal_()
        for own, start in zip(model.parameters(), base.parameters()):
            own.copy_(own - start + 0.9 * start)
    near = near_base(model, base, "model 0")
    start = known_start(model, base, near, decay(model, base, held))
    rows = "roberta.embeddings.word_embeddings.weight"
    assert torch.allclose(start[rows], 0.9 * base.get_parameter(rows), atol=1e-6)
    assert "classifier.dense.weight" not in start
    with torch.no_grad():
        for own in base.parameters():
            if own.ndim > 1:  # vectors, such as those of normalisations, are near in all models
                own.normal_()
    with pytest.raises(ValueError, match="no weights of model 0 are near"):
        near_base(model, base, "model 0")


@pytest.mark.parametrize("row", [0, 4, 9])
def test_a_model_that_did_not_start_from_the_base_is_named_wherever_it_stands(row):
    models, data, is_member, base = text_fleet()
    torch.manual_seed(3)
    models[row] = tiny_roberta()
    problem = fleet_problem(models, data, is_member, 8)
    problem.source.base = base
    with pytest.raises(ValueError, match=f"no weights of model {row} are near"):
        make_frame(problem.source, torch.arange(10).numpy())


@pytest.mark.parametrize("row", [0, 4])
def test_one_model_with_new_rows_does_not_take_the_start_from_all_others(row):
    models, data, is_member, base = text_fleet()
    with torch.no_grad():
        models[row].roberta.embeddings.word_embeddings.weight.normal_()
    problem = fleet_problem(models, data, is_member, 8)
    problem.source.base = base
    frame = make_frame(problem.source, torch.arange(10).numpy())
    rows = token_rows(base, frame.held, None)
    assert frame.token_start is not None
    along = (frame.token_start * rows).sum() / (frame.token_start.norm() * rows.norm())
    assert float(along) == pytest.approx(1, abs=1e-5)


def test_the_base_of_float16_models_is_found():
    own, base = torch.nn.Linear(512, 512, bias=False), torch.nn.Linear(512, 512, bias=False)
    with torch.no_grad():
        base.weight.fill_(1.0)  # 262,144 squares of 1: float16 ends at 65,504
        own.weight.fill_(1.25)
    assert near_base(own.half(), base.half(), "model 0") == {"weight"}


class Sentence(torch.nn.Module):
    """Rows of tokens, and perhaps of places, and one linear layer; padding has no part."""

    def __init__(self, places):
        super().__init__()
        self.rows = torch.nn.Embedding(60, 8)
        self.places = torch.nn.Embedding(9, 8) if places else None
        self.types = torch.nn.Embedding(1, 8)
        self.inner, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def get_input_embeddings(self):
        return self.rows

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        hidden = self.rows(input_ids)
        if self.places is not None:
            hidden = hidden + self.places(torch.arange(input_ids.shape[1]))
        hidden = torch.tanh(self.inner(hidden)) * attention_mask[..., None]
        return self.head(hidden.sum(1))


def decoded(models, data):
    """The frame of models, and the first one's signals."""
    is_member = np.arange(len(models))[:, None] % 2 == np.arange(len(data))[None] % 2
    problem = fleet_problem(models, data, is_member, len(models) - 1)
    frame = make_frame(problem.source, np.arange(len(models)))
    return frame, signals_of(models[0], frame)


@pytest.mark.parametrize("places", [False, True])
def test_lengths_of_gradients_are_those_of_the_weights_that_a_model_has(places, monkeypatch):
    torch.manual_seed(0)
    models, data = [Sentence(places).eval() for _ in range(5)], sentences()
    got = []
    real = model_signals.token_signals

    def kept(*args):
        got.append(args[-1])
        return real(*args)

    monkeypatch.setattr(model_signals, "token_signals", kept)
    frame, _ = decoded(models, data)
    for i in range(len(data)):
        value = (models[0](**data.inputs(torch.tensor([i])))[0] * frame.residual[i]).sum()
        used = [own for name, own in models[0].named_parameters() if "types" not in name]
        squares = sum(float(g.square().sum()) for g in torch.autograd.grad(value, used))
        assert float(got[0][i]) == pytest.approx(squares**0.5, rel=1e-4)


def test_a_sentence_without_tokens_and_padding_on_the_left_change_little():
    torch.manual_seed(0)
    models, data = [Sentence(False).eval() for _ in range(5)], sentences()
    _, right = decoded(models, data)
    flipped = TokenDataset(data.input_ids.flip(1), data.attention_mask.flip(1), data.labels)
    _, left = decoded(models, flipped)
    assert set(left) == set(right)
    assert np.allclose(left["tokens direction"][0.1], right["tokens direction"][0.1], atol=1e-3)
    mask = data.attention_mask.clone()
    mask[3] = 0
    _, empty = decoded(models, TokenDataset(data.input_ids, mask, data.labels))
    assert all(np.isfinite(own).all() for members in empty.values() for own in members.values())


def test_the_first_tokens_are_found_on_either_side_of_the_padding():
    inputs = torch.arange(12.0).reshape(3, 4, 1)
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert first_tokens(inputs, mask)[..., 0].tolist() == [[0, 1], [6, 7]]
    assert first_tokens(inputs[:, :1], mask).shape == (3, 1, 1)
    assert len(first_tokens(inputs, 0 * mask)) == 0


def test_a_pool_of_ones_own_models_may_know_their_base():
    models, labels = [torch.nn.Linear(4, 3) for _ in range(4)], torch.arange(20) % 3
    base, members = torch.nn.Linear(4, 3), torch.rand(4, 20) < 0.5
    data = torch.randn(20, 4)
    pool = ModelPool.from_models(models, data, labels, members, base_model=base)
    assert pool.source.base is base and pool.select(models=[0, 2]).source.base is base
    joined, _, _ = pool.with_targets(torch.nn.Linear(4, 3))
    assert joined.base is base
