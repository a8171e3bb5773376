"""Stacks in fixed shapes: the steps of each model alone, and a device that is asked nothing."""

import copy

import pytest
import torch
from test_fixed_shapes import Questions
from test_stacks import inputs_of, made, sgd

from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.stacked_batches import stacked_batches
from mico_competition.training.stacked_model import stacked, unstack
from mico_competition.training.stacked_step import StackedDPSGD, StackedPlainTrainer

EXPECTED, RECORDS = 4, 60
KINDS = ["MLP", "in place", "convolution, padded", "by pairs of pixels", "sentences"]


def options_of(physical, **changes):
    return {
        "noise_multiplier": 1e-12,
        "max_grad_norm": 2.0,
        "expected_batch_size": EXPECTED,
        "max_physical_batch_size": physical,
        "fixed_shapes": True,
        **changes,
    }


def case_of(kind, count=3, dtype=torch.float64):
    """Different models, records [count, RECORDS, ...] and labels."""
    models, x, _ = made(kind, count, dtype)
    shape = (count, RECORDS, *x.shape[2:])
    x = torch.randn(shape, dtype=dtype) * 3 if x.is_floating_point() else torch.randint(7, shape)
    return models, x, torch.randint(4, (count, RECORDS))


def generators(count, device="cpu"):
    return [torch.Generator(device).manual_seed(i) for i in range(count)]


def steps_on(device, lengths):
    """Batches of these lengths for each step and model, as training hands them over."""
    steps = [[torch.randperm(RECORDS)[:length] for length in step] for step in lengths]
    return list(stacked_batches(steps, torch.device(device)))


# Unequal, empty, full, and longer than the fixed length of 19, for each of three models.
LENGTHS = [[3, 4, 9], [0, 5, 1], [0, 0, 0], [19, 20, 2], [47, 0, 38], [1, 1, 1]]


@pytest.mark.parametrize("physical", [1, 7, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_in_fixed_shapes_takes_the_steps_of_each_model_alone(kind, physical):
    assert fixed_length(EXPECTED, RECORDS) == 19
    models, x, labels = case_of(kind)
    alone, whole = copy.deepcopy(models), stacked(models)
    options, seen = options_of(physical), []
    trainer = StackedDPSGD(whole, sgd(whole), noise_generators=generators(3), **options)
    steps = steps_on("cpu", LENGTHS)
    at = inputs_of(x)
    totals = []
    for number, batches in enumerate(steps):
        seen.append([])

        def inputs(positions, lengths=seen[number]):
            lengths.append(positions.shape)
            return at(positions)

        totals.append(trainer.step(batches, inputs, labels))
    length = min(physical, 19)
    assert {shape for shapes in seen for shape in shapes} == {(3, length)}
    assert [len(shapes) for shapes in seen] == [-(-max(step) // length) for step in LENGTHS]
    unstack(whole, models)
    for s, model in enumerate(alone):
        before = [p.detach().clone() for p in model.parameters()]
        one = DPSGD(model, sgd(model), noise_generator=generators(3)[s], **options)
        for batches, together in zip(steps, totals):
            total = one.step(batches[s], x[s].__getitem__, labels[s])
            torch.testing.assert_close(together[s], total, rtol=1e-5, atol=1e-6)
        assert any((p - b).abs().max() > 1e-3 for p, b in zip(model.parameters(), before))
        for mine, other in zip(models[s].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def trainer_of(run, models, device="cpu", optimizer=torch.optim.SGD, **changes):
    whole = stacked([model.to(device) for model in models])
    updates = optimizer(whole.parameters(), lr=0.01)
    if run == "plain":
        return StackedPlainTrainer(whole, updates, 4)
    noises = generators(len(models), device)
    return StackedDPSGD(whole, updates, noise_generators=noises, **options_of(4, **changes))


@pytest.mark.parametrize("run", ["private", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_a_stack_asks_nothing(kind, run):
    """Neither of full, unequal and empty batches, in one physical batch or several.

    Adam would ask for its step, which torch keeps on the CPU, so this is SGD.
    """
    models, x, labels = case_of(kind, dtype=torch.float32)
    trainer = trainer_of(run, models)
    first, *steps = steps_on("cpu", [[6, 6, 6], [6, 6, 6], [3, 9, 1], [5, 0, 2], [0, 0, 0]])
    trainer.step(first, inputs_of(x), labels)  # with the checks
    with Questions() as questions:
        for batches in steps if run == "private" else steps[:2]:
            trainer.step(batches, inputs_of(x), labels)
    assert not questions.asked


def test_a_private_step_of_a_stack_without_fixed_shapes_asks_once_a_physical_batch():
    """Which shows that the test above would see it."""
    models, x, labels = case_of("MLP", dtype=torch.float32)
    trainer = trainer_of("private", models, fixed_shapes=False)
    first, second = steps_on("cpu", [[6, 6, 6], [3, 9, 1]])
    trainer.step(first, inputs_of(x), labels)
    with Questions() as questions:
        trainer.step(second, inputs_of(x), labels)
    assert len(questions.asked) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("run", ["private", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_a_stack_on_a_gpu_waits_for_nothing(kind, run):
    models, x, labels = case_of(kind, dtype=torch.float32)
    x, labels = x.cuda(), labels.cuda()
    trainer = trainer_of(run, models, "cuda", torch.optim.Adam, fixed_shapes=None)
    rows = torch.arange(len(x), device="cuda").unsqueeze(1)

    def inputs(positions):
        return x[rows, positions].flatten(0, 1)

    *first, last = steps_on("cuda", [[6, 6, 6], [3, 9, 1], [6, 6, 6], [3, 9, 1]])
    for batches in first:
        trainer.step(batches, inputs, labels)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        totals = trainer.step(last, inputs, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert totals.isfinite().all()
