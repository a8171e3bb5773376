"""Padded physical batches take the same steps as those without padding, and ask a GPU nothing."""

import copy
import math

import pytest
import torch
from test_cancellation import CASES, cancelling
from test_not_finite import MODELS, NORM, VALUES
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mico_competition.models.architectures import CNN, MLP
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.fixed_shapes import fixed_length, padded, physical_batches

EXPECTED = 4


def trainer_of(model, *, fixed=True, norm=NORM, sigma=0.3, physical=100, optimizer=None, **options):
    return DPSGD(
        model,
        (optimizer or torch.optim.SGD)(model.parameters(), lr=0.1),
        noise_multiplier=sigma,
        max_grad_norm=norm,
        expected_batch_size=EXPECTED,
        max_physical_batch_size=physical,
        noise_generator=torch.Generator(next(model.parameters()).device).manual_seed(1),
        fixed_shapes=fixed,
        **options,
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_length_is_six_deviations_above_the_mean_or_what_memory_holds():
    assert fixed_length(512, 10_000) == math.ceil(513 + 6 * math.sqrt(513)) == 649
    assert fixed_length(512, 128) == 128
    assert fixed_length(1, 100) == 11


def test_padding_repeats_the_first_record():
    assert padded(torch.tensor([5, 2, 9]), 5).tolist() == [5, 2, 9, 5, 5]
    assert padded(torch.tensor([5, 2]), 2).tolist() == [5, 2]
    parts = physical_batches(torch.arange(7), 3)
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [len(part) for part in physical_batches(torch.arange(0), 3)] == [0]


class Seen(nn.Module):
    """Records the lengths of the batches that a model sees in training."""

    def __init__(self, model):
        super().__init__()
        self.model, self.lengths, self.records = model, [], False

    def forward(self, x):
        if self.records:
            self.lengths.append(len(x))
        return self.model(x)


# Of 60 records: none, one, few, the expected number, and more than the fixed length (20) holds.
BATCHES = [[], [3], [1, 4, 5], [0, 2, 7, 9], list(range(47)), [], list(range(20)), list(range(21))]


@pytest.mark.parametrize("physical", [5, 100])
@pytest.mark.parametrize("kind", MODELS)
def test_padded_steps_are_the_steps_without_padding(kind, physical):
    """Weights to 1e-6 after steps of all lengths; the losses, and the generator's state, too."""
    torch.manual_seed(0)
    shape, build = MODELS[kind]
    model = build()
    inputs, labels = torch.randn(60, *shape), torch.randint(4, (60,))
    found = []
    for fixed in (False, True):
        trained = copy.deepcopy(model)
        trainer = trainer_of(trained, fixed=fixed, physical=physical)
        losses = [trainer.step(torch.tensor(b).long(), inputs.__getitem__, labels) for b in BATCHES]
        state = trainer.optimizer.generator.get_state()
        found.append((flat(trained), torch.stack(losses), state))
    (weights, losses, state), (other_weights, other_losses, other_state) = found
    assert (weights - flat(model)).norm() > 0.01
    torch.testing.assert_close(other_weights, weights, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other_losses, losses, rtol=1e-6, atol=1e-6)
    assert torch.equal(state, other_state)


def test_the_model_sees_one_length_and_no_record_is_cut():
    torch.manual_seed(0)
    model = Seen(MLP(6, 8, 4))
    inputs, labels = torch.randn(60, 6), torch.randint(4, (60,))
    trainer = trainer_of(model)
    trainer.step(torch.tensor([1, 2]), inputs.__getitem__, labels)  # with the checks
    model.records = True
    for batch in BATCHES:
        trainer.step(torch.tensor(batch).long(), inputs.__getitem__, labels)
    length = fixed_length(EXPECTED, 60)
    assert set(model.lengths) == {length} == {19}
    assert len(model.lengths) == sum(-(-len(batch) // length) for batch in BATCHES)


def test_an_empty_batch_is_a_step_of_noise():
    model = MLP(40, 60, 10)
    before = flat(model)
    inputs, labels = torch.randn(9, 40), torch.zeros(9, dtype=torch.int64)
    trainer = trainer_of(model, sigma=1.7, norm=0.4)
    total = trainer.step(torch.arange(0), inputs.__getitem__, labels)
    noise, stated = (flat(model) - before) / 0.1, 1.7 * 0.4 / EXPECTED
    assert total == 0
    assert abs(float(noise.std()) / stated - 1) < 5 / math.sqrt(2 * noise.numel())


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_record_that_is_not_finite_does_not_reach_the_sum(kind, value):
    """Neither as a record nor as padding, of which it gives all if it is the first."""
    torch.manual_seed(0)
    shape, build = MODELS[kind]
    trainer = trainer_of(build())
    inputs, labels = torch.randn(7, *shape), torch.randint(4, (7,))
    inputs[0].view(-1)[2] = value
    few = torch.arange(3)
    without = sums(trainer, inputs, labels, few[1:])
    moved = sums(trainer, inputs, labels, few) - without
    assert without.norm() > 0 and moved.double().norm() <= NORM * (1 + 1e-5)
    with_padding = sums(trainer, inputs, labels, padded(few, 7), torch.arange(7) < 3)
    assert (with_padding - without).double().norm() <= NORM * (1 + 1e-5)


def sums(trainer, inputs, labels, at, counts=None):
    """The clipped sum of the records `at`, by the trainer's own backward pass."""
    trainer._backward(inputs[at], labels[at], counts)
    gradients = [p.grad.flatten() for p in trainer.model.parameters()]
    trainer.optimizer.zero_grad(set_to_none=True)
    return torch.cat(gradients)


@pytest.mark.parametrize("case", CASES)
def test_a_record_whose_positions_cancel_is_clipped_without_asking(case):
    """Its norm counts as the bound below which rounding hides it, so it moves the sum by C."""
    make, positions = CASES[case]
    torch.manual_seed(0)
    model, shaped, weight_of = make()
    generator = torch.Generator().manual_seed(1)
    trainer = trainer_of(model, norm=1.0)
    for _ in range(10):
        record = cancelling(torch.float32, weight_of(model).detach(), positions, generator)
        together = torch.randn(4, *record.shape, generator=generator)
        together[2] = record
        x, labels = torch.stack([shaped(each) for each in together]), torch.arange(4) % 3
        moved = sums(trainer, x, labels, torch.arange(4)) - sums(
            trainer, x, labels, torch.tensor([0, 1, 3])
        )
        assert moved.double().norm() <= 1.001


class Reads(TorchFunctionMode):
    """Counts the methods that copy values to the host; on a CPU they are no operations."""

    NAMES = ("tolist", "cpu", "numpy")

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.NAMES:
            self.asked.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Questions(TorchDispatchMode):
    """Counts the operations whose results the host waits for, or whose shapes depend on values.

    It sees neither `Tensor.to`, which on a CPU copies nothing, nor a copy from the host.
    """

    NAMES = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select")

    def __init__(self):
        super().__init__()
        self.asked = []
        self._reads = Reads(self.asked)

    def __enter__(self):
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._reads.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.NAMES or by_mask:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.numpy(), lambda x: x[0].item(),
        lambda x: int(x[0]), lambda x: bool(x[0]), lambda x: x[x > 1], lambda x: x.nonzero(),
        lambda x: torch.arange(x[1]), lambda x: torch.equal(x, x), lambda x: [0, 1][x[0]],
    ],
)  # fmt: skip
def test_questions_are_seen(ask):
    with Questions() as questions:
        ask(torch.arange(3))
    assert len(questions.asked) == 1


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("kind", ["mlp", "cnn", *MODELS])
def test_a_step_asks_nothing(kind, fixed):
    """Without fixed shapes it does, once a physical batch, which shows that the test sees it.

    Adam would ask for its step, which torch keeps on the CPU, so this is SGD.
    """
    torch.manual_seed(0)
    named = {"mlp": ((6,), lambda: MLP(6, 8, 4)), "cnn": ((3, 32, 32), lambda: CNN())}
    shape, build = {**MODELS, **named}[kind]
    inputs, labels = torch.randn(9, *shape), torch.randint(4, (9,))
    trainer = trainer_of(build(), fixed=fixed, physical=4)
    batch = torch.arange(6)
    trainer.step(batch, inputs.__getitem__, labels)  # with the checks
    with Questions() as questions:
        for _ in range(3):
            trainer.step(batch, inputs.__getitem__, labels)
    assert len(questions.asked) == (0 if fixed else 6), questions.asked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_on_a_gpu_waits_for_nothing(kind):
    torch.manual_seed(0)
    shape, build = MODELS[kind]
    inputs, labels = torch.randn(9, *shape).cuda(), torch.randint(4, (9,)).cuda()
    trainer = trainer_of(build().cuda(), fixed=None, physical=4, optimizer=torch.optim.Adam)
    assert trainer.fixed_shapes
    batch = torch.arange(6, device="cuda")
    for _ in range(3):
        trainer.step(batch, inputs.__getitem__, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = trainer.step(batch, inputs.__getitem__, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()


def test_a_cpu_does_not_pad_unless_it_is_asked():
    assert not trainer_of(MLP(6, 8, 4), fixed=None).fixed_shapes


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES[1:])
def test_fixed_shapes_are_for_bookkeeping(mode):
    with pytest.raises(ValueError, match="Fixed shapes do not work with Opacus' mode"):
        trainer_of(MLP(6, 8, 4), grad_sample_mode=mode)


def test_the_clipped_sum_of_the_checks_is_that_of_padded_steps():
    """`DPSGD._clipped_sum`, which the checks and the audits call, runs the same code."""
    torch.manual_seed(0)
    model = MLP(6, 8, 4)
    x, labels = torch.randn(5, 6), torch.arange(5) % 4
    made = [
        trainer_of(copy.deepcopy(model), fixed=fixed)._clipped_sum(Batch(x, labels), NORM).sums
        for fixed in (True, False)
    ]
    for one, other in zip(*made):
        torch.testing.assert_close(one, other)
