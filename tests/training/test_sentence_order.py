"""Sentences in the order of their lengths: the same batches, gradients and accuracy."""

import pytest
import torch
from helpers_models import TINY
from helpers_resume import PRIVATE, SEEDS, small_settings

from mico_competition.data.arrays import TokenDataset
from mico_competition.models.architectures import logits
from mico_competition.training import sentence_order
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.sentence_order import OrderedRecords
from mico_competition.training.streams import Streams
from mico_competition.training.train import fit_records
from mico_competition.training.train_stack import fit_stack_records

PAD, LONGEST, N = 1, 24, 20
SILENT = Mechanism(1e-9, 0.25, 12)  # hardly any noise
CLIP = 0.05  # below the gradients' norms, so that all are clipped


@pytest.fixture(scope="module")
def data():
    """60 sentences of 3 to 24 tokens, in no order."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(3, LONGEST + 1, (60,), generator=generator)
    mask = (torch.arange(LONGEST) < lengths[:, None]).to(torch.uint8)
    ids = torch.randint(5, 300, mask.shape, generator=generator, dtype=torch.int32)
    labels = torch.randint(2, (60,), generator=generator)
    return TokenDataset(ids.where(mask > 0, PAD), mask, labels)


@pytest.fixture
def padded(monkeypatch):
    """A function that makes all sentences keep their padding, and batches their order."""
    return lambda: monkeypatch.setattr(sentence_order, "masks_padding", lambda model: False)


def model_of(kind="roberta"):
    """A small text model without dropout."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "model_type"}
    config = transformers.AutoConfig.for_model(kind, **sizes, pad_token_id=PAD)
    return transformers.AutoModelForSequenceClassification.from_config(config)


class Log:
    """An observer that keeps the batches, and the gradients that the optimiser gets."""

    def __init__(self):
        self.batches, self.gradients = [], []

    def start(self, optimizer):
        optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: self._keep(optimizer))

    def _keep(self, optimizer):
        (group,) = optimizer.param_groups
        self.gradients.append(torch.cat([p.grad.flatten() for p in group["params"]]).clone())

    def before(self, batch):
        self.batches.append(batch.clone())

    def end_epoch(self):
        pass


def run(data, settings, mechanism=None):
    """The log of a run, the trained model, and the shape of each input it got in training."""
    model, log, shapes = model_of(), Log(), []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    options = {"observer": log, "mechanism": mechanism}
    streams = Streams.of(7, SEEDS)
    fit_records(settings, model, data, torch.arange(N), streams, False, **options)
    handle.remove()
    return log, model, shapes


@pytest.mark.parametrize("scenario", ["inf", "lo"])
def test_batches_and_gradients_are_those_of_padded_sentences(tmp_path, data, padded, scenario):
    flags = {"optimizer": "sgd", "learning_rate": 0.1, "max_physical_batch_size": 3}
    settings = small_settings(tmp_path, "sst2", scenario, **flags)
    mechanism = PRIVATE if scenario == "lo" else None
    short, _, seen = run(data, settings, mechanism)
    padded()
    whole, _, all_seen = run(data, settings, mechanism)
    assert len(short.batches) == settings.num_steps
    for one, other in zip(short.batches, whole.batches, strict=True):
        assert torch.equal(one, other), "what is drawn is not put in order"
    for one, other in zip(short.gradients, whole.gradients, strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    steps = sum(-(-len(batch) // 3) for batch in short.batches)
    trained, all_trained = seen[-steps:], all_seen[-steps:]  # after the checks of the first batch
    assert [rows for rows, _ in trained] == [rows for rows, _ in all_trained]
    assert {width for _, width in all_trained} == {LONGEST}
    tokens = sum(rows * width for rows, width in trained)
    assert tokens < 0.8 * LONGEST * sum(rows for rows, _ in trained)


def test_a_private_step_is_the_sum_of_clipped_gradients_of_padded_sentences(tmp_path, data):
    """Against plain autograd of one padded sentence at a time."""
    flags = {"max_physical_batch_size": 2, "max_grad_norm": CLIP}
    settings = small_settings(tmp_path, "sst2", "lo", **flags)
    log, _, _ = run(data, settings, SILENT)
    model, total = model_of(), 0.0
    for record in log.batches[0]:
        outputs = logits(model, data.inputs(record[None]))
        loss = torch.nn.functional.cross_entropy(outputs, data.labels[record][None])
        row = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        assert float(row.norm()) > CLIP
        total = total + row * (CLIP / float(row.norm()))
    wanted = total / settings.expected_batch_size
    assert len(log.batches[0]) > 2
    assert float((log.gradients[0] - wanted).norm()) <= 1e-3 * float(wanted.norm())


def test_shapes_are_few_for_graphs(tmp_path, data):
    options = {"optimizer": "sgd", "max_physical_batch_size": 3, "cuda_graphs": True}
    log, _, seen = run(data, small_settings(tmp_path, "sst2", "lo", **options), PRIVATE)
    steps = sum(-(-len(batch) // 3) for batch in log.batches)
    assert {width for _, width in seen[-steps:]} <= {8, 16, LONGEST}


def own_positions(lengths):
    """8, 16 or all 24 positions, by the length of each sentence."""
    return torch.where(lengths <= 8, 8, torch.where(lengths <= 16, 16, LONGEST))


def test_in_low_precision_a_sentence_has_a_shape_that_depends_on_no_other(tmp_path, data):
    options = {"optimizer": "sgd", "max_physical_batch_size": 3, "precision": "bfloat16"}
    log, _, seen = run(data, small_settings(tmp_path, "sst2", "lo", **options), PRIVATE)
    lengths = data.attention_mask.sum(1)
    expected = []
    for batch in log.batches:
        for width in (LONGEST, 16, 8):
            records = int((own_positions(lengths[batch]) == width).sum())
            expected += [(3, width)] * -(-records // 3)
    assert seen[-len(expected) :] == expected


def bfloat16_sum(data, records):
    """The clipped sum of a step in bfloat16 on these records, in groups of one shape."""
    model = model_of().train()
    found = OrderedRecords(model, data, torch.arange(60), sentence_order.OWN)
    trainer = DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=1e-9,
        max_grad_norm=CLIP,
        expected_batch_size=1,
        max_physical_batch_size=8,
        precision="bfloat16",
    )
    sums = []
    trainer.optimizer.original_optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: sums.append(
            torch.cat([p.grad.double().flatten() for p in optimizer.param_groups[0]["params"]])
        )
    )
    trainer.step(found.groups(records), found.inputs, data.labels)
    return sums[0]


@pytest.mark.parametrize("left_out", ["longest", "shortest"])
def test_a_sentence_moves_the_sum_of_a_step_in_bfloat16_by_the_norm_at_most(data, left_out):
    records = torch.arange(30)
    lengths = data.attention_mask[records].sum(1)
    gone = int(lengths.argmax() if left_out == "longest" else lengths.argmin())
    whole, without = (bfloat16_sum(data, at) for at in (records, records[records != gone]))
    assert 0.99 * CLIP < float((whole - without).norm()) <= CLIP * (1 + 1e-3)


def test_a_stack_in_low_precision_has_one_shape(tmp_path, data, monkeypatch):
    """All positions: the groups of its models have different numbers of sentences."""
    flags = {"optimizer": "sgd", "max_physical_batch_size": 3, "precision": "bfloat16"}
    settings = small_settings(tmp_path, "sst2", "lo", **flags)
    shapes, taken = set(), OrderedRecords.inputs

    def inputs(self, at):
        found = taken(self, at)
        shapes.add(tuple(found["input_ids"].shape))
        return found

    monkeypatch.setattr(OrderedRecords, "inputs", inputs)
    models = [model_of() for _ in range(2)]
    indices = torch.stack([torch.arange(N), torch.arange(N) + 30])
    streams = [Streams.of(seed, SEEDS) for seed in (7, 8)]
    fit_stack_records(settings, models, data, indices, streams, False, mechanism=PRIVATE)
    assert shapes == {(6, LONGEST)}


def test_the_longest_sentences_go_first_and_none_is_left_out(data):
    records = torch.arange(10, 40)
    found = OrderedRecords(model_of(), data, records)
    batch = torch.tensor([3, 8, 2, 20, 29, 11])
    order = found.order(batch)
    lengths = data.attention_mask[records[order]].sum(1).tolist()
    assert sorted(order.tolist()) == sorted(batch.tolist())
    assert lengths == sorted(lengths, reverse=True)
    for position, length in zip(order, lengths):
        (ids,) = found.inputs(position[None])["input_ids"]
        assert torch.equal(ids, data.input_ids[records[position], :length].long())
    assert found.order(batch[:0]).shape == (0,)
    assert [group.shape for group in found.groups(batch[:0])] == [(0,)]


@pytest.mark.parametrize("most", [5, 8, 9, 24, 67, 512])
def test_own_positions_are_the_least_doubling_of_eight(most):
    lengths = torch.arange(1, most + 1)
    found = sentence_order._rounded(lengths, "own", most)
    for length, own in zip(lengths.tolist(), found.tolist()):
        expected = 8
        while expected < length:
            expected *= 2
        assert own == min(expected, most)


def test_groups_hold_each_record_once_and_share_their_positions(data):
    found = OrderedRecords(model_of(), data, torch.arange(60), "own")
    batch = torch.randperm(60)
    groups = found.groups(batch)
    assert torch.equal(torch.cat([*groups]), found.order(batch))
    assert sorted(torch.cat([*groups]).tolist()) == list(range(60))
    lengths = data.attention_mask.sum(1)
    widths = [set(own_positions(lengths[group]).tolist()) for group in groups]
    assert widths == [{LONGEST}, {16}, {8}]


@pytest.mark.parametrize("positions", ["any", "few", "own"])
def test_the_lengths_of_a_batch_on_the_host_are_known_to_the_host(data, positions):
    """The records are on a device without any values, so that nothing can be read from it."""
    there = data.to(torch.device("meta"))
    found = OrderedRecords(model_of(), data, torch.arange(40), positions)
    batch = torch.cat([*found.groups(torch.tensor([5, 1, 7, 30]))])
    lengths = [found.inputs(at)["input_ids"].shape for at in batch.split(2)]
    found._data, found._indices = there, torch.arange(40, device="meta")
    for at, shape in zip(batch.split(2), lengths):
        inputs = found.inputs(at)
        assert {own.device.type for own in inputs.values()} == {"meta"}
        assert inputs["input_ids"].shape == shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_of_sentences_waits_for_nothing_on_a_gpu(data):
    there, model = data.to(torch.device("cuda")), model_of().cuda().train()
    records = OrderedRecords(model, there, torch.arange(N, device="cuda"))
    trainer = DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=6,
        max_physical_batch_size=4,
    )
    batch = records.order(torch.arange(7))
    for _ in range(3):
        trainer.step(batch, records.inputs, there.labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = trainer.step(records.order(torch.arange(3, 9)), records.inputs, there.labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()


def test_models_that_may_use_padding_get_it(data):
    found = OrderedRecords(model_of("fnet"), data, torch.arange(40))
    batch = torch.tensor([5, 1, 7])
    assert torch.equal(found.order(batch), batch)
    assert found.inputs(batch)["input_ids"].shape == (3, LONGEST)


def test_accuracy_and_loss_are_those_of_padded_sentences(data, padded):
    model, at = model_of(), torch.tensor([50, 4, 33, 21, 8, 59, 12])
    short = evaluate(model, data, at, batch_size=3)
    padded()
    assert short == pytest.approx(evaluate(model, data, at, batch_size=3), rel=1e-6)
    alone = [evaluate(model, data, one[None])["loss"] for one in at]
    assert short["loss"] == pytest.approx(sum(alone) / len(at), rel=1e-6)
