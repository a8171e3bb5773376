"""Book-keeping gives what a loop over single examples gives, and refuses what it cannot clip."""

import copy

import pytest
import torch
from helpers_models import write_base
from torch import nn

from mico_competition import ghost_norms
from mico_competition.bookkeeping import BookKeeper
from mico_competition.dpsgd import PrivateTrainer, clip_factors, per_example_losses
from mico_competition.models import CNN, MLP, new_model
from mico_competition.tracks import TASKS

# Relative to the norm of what a loop in float64 gives.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
TINY_NOISE = 1e-12


# -- models with their data -------------------------------------------------------------------


def sentences(batch, length):
    """Tokens of 5..299 with padding at the end, more of it in later examples; one is full."""
    ids = torch.randint(5, 300, (batch, length))
    ids[:, 0] = 0
    for row in range(1, batch):
        ids[row, max(2, length - 2 * row) :] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def make(kind, folder, batch=5):
    """A model, inputs and labels; gradients of the examples differ in length."""
    torch.manual_seed(3)
    scale = torch.linspace(0.1, 2, batch)
    if kind == "cnn":
        inputs = torch.randn(batch, 3, 32, 32) * scale.view(-1, 1, 1, 1)
        return CNN(), inputs, torch.randint(10, (batch,))
    if kind == "mlp":
        records = (torch.rand(batch, 600) < scale.view(-1, 1) / 4).float()
        return MLP(), records, torch.randint(100, (batch,))
    model = new_model(TASKS["sst2"], base_model=write_base(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # fresh weights are so small that all sentences look the same
    length = {"roberta, short": 7, "roberta, long": 40}[kind]
    return model, sentences(batch, length), torch.randint(2, (batch,))


KINDS = ["cnn", "mlp", "roberta, short", "roberta, long"]


def cast(inputs, dtype):
    return inputs.to(dtype) if isinstance(inputs, torch.Tensor) else inputs


def rows(inputs, index):
    if isinstance(inputs, torch.Tensor):
        return inputs[index]
    return {name: values[index] for name, values in inputs.items()}


# -- the loop ---------------------------------------------------------------------------------


def gradients_by_loop(model, inputs, labels, losses=per_example_losses):
    """float64, one list of gradients an example, by autograd on batches of one."""
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    found = []
    for i in range(len(labels)):
        one = slice(i, i + 1)
        loss = losses(model, rows(cast(inputs, torch.float64), one), labels[one])
        found.append(torch.autograd.grad(loss.sum(), parameters))
    return found


def norms_of(gradients):
    return torch.stack([torch.cat([g.flatten() for g in one]).norm() for one in gradients])


def weighted_sums(gradients, weights):
    columns = zip(*gradients, strict=True)
    return [sum(w * g for w, g in zip(weights, column, strict=True)) for column in columns]


def assert_agrees(model, inputs, labels, losses=per_example_losses):
    """Norms and clipped sums against the loop; some examples are clipped, unless all are alike."""
    expected = gradients_by_loop(model, inputs, labels, losses)
    lengths = norms_of(expected)
    bound = float(lengths.mean()) * 0.999
    for dtype, tolerance in TOLERANCE.items():
        mine = copy.deepcopy(model).to(dtype)
        keeper = BookKeeper(mine)
        with keeper.recording():
            norms = keeper.norms(losses(mine, cast(inputs, dtype), labels))
        assert norms.dtype == dtype
        torch.testing.assert_close(norms.double(), lengths, rtol=tolerance, atol=0)
        keeper.write_weighted_sum(clip_factors(norms, bound))
        sums = weighted_sums(expected, clip_factors(lengths, bound))
        whole = float(norms_of([sums]))
        for (name, parameter), part in zip(mine.named_parameters(), sums, strict=True):
            error = float((parameter.grad.double() - part).norm())
            # Some are nothing but rounding: attention does not change with the keys' bias.
            assert error <= tolerance * max(float(part.norm()), 1e-2 * whole), (name, dtype)
    return lengths, bound


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_clipped_sums_are_the_loops(kind, batch, tmp_path):
    lengths, bound = assert_agrees(*make(kind, tmp_path, batch))
    if batch > 1:
        assert 1.05 * lengths.min() < bound < lengths.max() / 1.05, "some are clipped, some not"


# -- each rule, each branch -------------------------------------------------------------------


@pytest.fixture
def by_pairs(monkeypatch):
    """The shapes whose pairs of places were taken, in call order."""
    calls = []
    pairs = ghost_norms._pairs

    def counted(x):
        calls.append(tuple(x.shape))
        return pairs(x)

    monkeypatch.setattr(ghost_norms, "_pairs", counted)
    return calls


def total_losses(model, inputs, labels):
    """A loss for models of any output: half the squares, weighted differently by place."""
    outputs = model(inputs).flatten(1)
    return (outputs**2 * torch.linspace(0.5, 1.5, outputs.shape[1]).to(outputs)).sum(1) / 2


@pytest.mark.parametrize(
    ("shape", "pairs"),
    [((3, 20), False), ((3, 4, 20), True), ((3, 90, 20), False), ((3, 2, 3, 20), True)],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, pairs, bias, by_pairs):
    torch.manual_seed(0)
    assert_agrees(nn.Linear(20, 12, bias=bias), torch.randn(shape), torch.zeros(3), total_losses)
    assert bool(by_pairs) == pairs


@pytest.mark.parametrize(
    ("channels", "size", "options", "pairs"),
    [
        ((16, 64), (5, 6), {}, True),
        ((16, 64), (5, 6), {"padding": (1, 0)}, True),
        ((16, 64), (5, 6), {"padding": 1, "bias": False}, True),
        ((16, 64), (5, 6), {"padding": (0, 1), "stride": (2, 1)}, False),
        ((16, 64), (7, 8), {"padding": (2, 1), "dilation": (1, 2)}, False),
        ((2, 3), (9, 8), {}, False),
        ((2, 3), (9, 8), {"padding": 2, "stride": 3, "dilation": 2, "bias": False}, False),
    ],
    ids=str,
)
def test_conv2d(channels, size, options, pairs, by_pairs):
    torch.manual_seed(0)
    model = nn.Conv2d(*channels, kernel_size=(3, 2), **options)
    assert_agrees(model, torch.randn(3, channels[0], *size), torch.zeros(3), total_losses)
    assert bool(by_pairs) == pairs


class Tokens(nn.Module):
    """An embedding whose rows are scaled by `scales`, so that it can be cast with its inputs."""

    def __init__(self, **options):
        super().__init__()
        self.table = nn.Embedding(6, 4, **options)

    def forward(self, ids):
        return self.table(ids.long())


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("padding", [None, 1, -1])
def test_embedding(shape, padding):
    """Few tokens, so that each example has some of them more than once."""
    torch.manual_seed(0)
    model = Tokens(padding_idx=padding)
    with torch.no_grad():
        model.table.weight.normal_()  # the padding's row too
    ids = torch.arange(5).repeat_interleave(max(1, torch.tensor(shape[1:]).prod())).view(shape)
    ids = (ids + torch.randint(3, shape)) % 5  # 5 is the padding of -1, and occurs never
    assert_agrees(model, ids.float(), torch.zeros(5), total_losses)


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8), (3, 2, 5, 8)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(shape, bias):
    torch.manual_seed(0)
    assert_agrees(nn.LayerNorm(8, bias=bias), torch.randn(shape), torch.zeros(3), total_losses)
    both = nn.LayerNorm(shape[1:], bias=bias)
    assert_agrees(both, torch.randn(shape), torch.zeros(3), total_losses)


class ByName(nn.Module):
    """Calls its layer with a named argument, and changes the result in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.two(input=self.one(input=x).tanh()).relu_()


def test_calls_by_name_and_results_changed_in_place():
    torch.manual_seed(0)
    assert_agrees(ByName(), torch.randn(7, 4), torch.zeros(7), total_losses)


def test_rounding_never_makes_a_norm_of_nothing():
    """The gradients of the places cancel; a sum over pairs of places is then mere rounding."""
    torch.manual_seed(0)
    rule = ghost_norms.LinearRule("layer", nn.Linear(64, 64))
    a = torch.randn(200, 1, 64).repeat(1, 8, 1)
    g = torch.randn(200, 8, 64)
    g -= g.mean(1, keepdim=True)
    assert rule.norms_from(a, g).min() < 0
    rule.see_input(a)
    rule.see_output_gradient(g)
    assert rule.squared_norms(torch.Size([200])).min() == 0


# -- steps ------------------------------------------------------------------------------------


def trainer_of(model, *, lr=0.5, sigma=TINY_NOISE, norm=1.0, size=100, mode="bookkeeping"):
    return PrivateTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=lr),
        noise_multiplier=sigma,
        max_grad_norm=norm,
        expected_batch_size=4,
        max_physical_batch_size=size,
        grad_sample_mode=mode,
        noise_generator=torch.Generator().manual_seed(5),
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepped(model, inputs, labels, **options):
    """How far one step over all examples takes a copy of the model."""
    mine = copy.deepcopy(model)
    trainer = trainer_of(mine, **options)
    trainer.step(torch.arange(len(labels)), lambda index: rows(inputs, index), labels)
    return flat(mine) - flat(model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_opacus_hooks(kind, tmp_path):
    """From the same weights, over 7 examples in physical batches of 3; the noise is the same."""
    model, inputs, labels = make(kind, tmp_path, batch=7)
    norm = float(norms_of(gradients_by_loop(model, inputs, labels)).mean())
    for sigma in (TINY_NOISE, 0.1):
        mine = stepped(model, inputs, labels, norm=norm, sigma=sigma, size=3)
        theirs = stepped(model, inputs, labels, norm=norm, sigma=sigma, mode="hooks")
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_is_a_step_of_noise(kind, tmp_path):
    model, inputs, labels = make(kind, tmp_path, batch=2)
    before = flat(model)
    total = trainer_of(model, sigma=2.0, norm=3.0, lr=1.0).step(
        torch.arange(0), lambda index: rows(inputs, index), labels
    )
    assert total == 0
    moved = flat(model) - before
    # sigma C / L, within five standard errors of a normal sample's deviation.
    assert abs(float(moved.std()) / (2.0 * 3.0 / 4) - 1) < 5 / (2 * moved.numel()) ** 0.5


# -- refusals ---------------------------------------------------------------------------------


def shared_parameter():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


class Own(nn.Module):
    """A parameter outside of any layer that is known."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (shared_parameter(), r"2\.weight is shared with 0\.weight"),
        (nn.ModuleDict({"mix": nn.Bilinear(3, 3, 3)}), r"Layer mix \(Bilinear\) is not supported"),
        (nn.Sequential(nn.Tanh(), nn.GRU(3, 3)), r"Layer 1 \(GRU\) is not supported.*--grad_"),
        (nn.MultiheadAttention(4, 2), r"Layer model \(MultiheadAttention\) is not supported"),
        (nn.Sequential(Own()), r"Layer 0 \(Own\) is not supported"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), r"Layer 0 \(Conv2d\).*groups=1"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")), r"Layer 0 \(Conv2d\).*padding"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding_mode="circular")), r"Layer 0 .*padding_mode"),
        (nn.Sequential(nn.Embedding(4, 4, max_norm=1.0)), r"Layer 0 \(Embedding\).*max_norm"),
        (nn.Sequential(nn.Embedding(4, 4, sparse=True)), r"Layer 0 \(Embedding\).*sparse"),
        (nn.Sequential(nn.Embedding(4, 4, scale_grad_by_freq=True)), r"Layer 0 \(Embedding\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_models_that_cannot_be_clipped_are_refused_at_once(model, message):
    with pytest.raises(ValueError, match=message):
        BookKeeper(model)
    with pytest.raises(ValueError, match="cannot be trained privately|" + message):
        trainer_of(model)  # Opacus has its say first


class Switched(nn.Module):
    """Three layers, used in an order that `way` names."""

    def __init__(self, way="plain"):
        super().__init__()
        self.way = way
        self.one, self.two, self.three = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return getattr(self, self.way)(x)

    def plain(self, x):
        return self.three(self.two(self.one(x).tanh()).tanh())

    def twice(self, x):
        return self.three(self.two(self.two(self.one(x)).tanh()))

    def left_out(self, x):
        return self.three(self.one(x))

    def unused(self, x):
        self.two(x)
        return self.three(self.one(x))

    def without_gradient(self, x):
        with torch.no_grad():
            below = self.one(x)
        return self.three(self.two(below))

    def nothing(self, x):
        with torch.no_grad():
            return self.plain(x)

    def by_weight(self, x):
        return self.three(nn.functional.linear(self.one(x), self.two.weight, self.two.bias))

    def flattened(self, x):
        places = self.two(torch.stack([x, x + 1], 1).view(-1, 6))
        return self.three(self.one(x) + places.view(-1, 2, 6).sum(1))

    def pooled(self, x):
        return self.three(self.one(x) + self.two(x.mean(0, keepdim=True)))

    def in_place(self, x):
        below = self.one(x) * 1
        above = self.two(below)
        below.mul_(0.5)
        return self.three(above + below)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("twice", "Layer two is called twice"),
        ("left_out", "Layer two takes no part in the loss"),
        ("unused", "Layer two takes no part in the loss"),
        ("without_gradient", "Layer one takes no part in the loss"),
        ("nothing", "Layer one takes no part in the loss"),
        ("by_weight", "Layer two takes no part in the loss"),
        ("flattened", "Layer two sees 6 rows in a batch of 3 examples"),
        ("pooled", "Layer two sees 1 rows in a batch of 3 examples"),
        ("in_place", "Layer two had its input changed in place"),
    ],
)
def test_what_cannot_be_clipped_is_refused_in_mid_step(way, message):
    """In the second of three physical batches; nothing is trained, and a mended model goes on."""
    torch.manual_seed(0)
    model, inputs, labels = Switched(), torch.randn(7, 6), torch.randint(4, (7,))
    expected = stepped(model, inputs, labels, size=3, norm=0.5, sigma=0.1)
    before = flat(model)
    trainer = trainer_of(model, size=3, norm=0.5, sigma=0.1)
    calls = []

    def spoilt_later(index):
        calls.append(index)
        model.way = way if len(calls) == 2 else "plain"
        return inputs[index]

    with pytest.raises(ValueError, match=message):
        trainer.step(torch.arange(7), spoilt_later, labels)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(flat(model), before)
    model.way = "plain"
    trainer.step(torch.arange(7), inputs.__getitem__, labels)
    torch.testing.assert_close(flat(model) - before, expected)


def test_an_error_of_the_models_own_leaves_parameters_trainable():
    model = MLP(6, 8, 4)
    trainer = trainer_of(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trainer.step(torch.arange(2), lambda index: torch.zeros(2, 5), torch.zeros(2).long())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_outside_of_a_step_the_model_is_as_any_other():
    model = MLP(6, 8, 4)
    trainer_of(model)
    model(torch.randn(3, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
