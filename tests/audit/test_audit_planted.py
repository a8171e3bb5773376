"""Faults planted in the code that fleets run: each must raise an alarm, alone and in a stack.

The faults are in `helpers_planted`, some seventy of them.  Runs are as short as can be, so a real
audit sees more.
"""

from functools import cache

import helpers_planted as planted
import numpy as np
import pytest
from helpers_data import blobs

from mico_competition.audit.trainer import noise_tests
from mico_competition.audit.trainer.audit import audit_paths, audit_trainer, claim_of_settings
from mico_competition.audit.trainer.canary_run import audit_set_of, run
from mico_competition.audit.trainer.checks import ALARM
from mico_competition.audit.trainer.independence import over_all_steps
from mico_competition.audit.trainer.mechanism_tests import mechanism_checks
from mico_competition.audit.trainer.recording import BLOCK, NoiseRows
from mico_competition.cli import main
from mico_competition.data.datasets import load_dataset
from mico_competition.models.inputs import prepare
from mico_competition.training import dpsgd, private_optimizer, train
from mico_competition.training import stacked_step as stack
from mico_competition.training.settings import resolve
from mico_competition.training.streams import Streams


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Curves in steps of 5 %, not 1: bounds hold as before, are a little lower, and are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mico_competition.audit.mechanism_curve._STRIDE", 0.05)
        patch.setattr("mico_competition.audit.trainer.draw_tests._DRAWS", 1000)
        yield


CAUGHT_BY = {
    "no noise on the output layer's bias": "noise of mlp.2.bias",
    "no noise on one coordinate": "noise in every part",
    "noise on a grid of 0.001": "distribution of noise",
    "the generator's state put back for each tensor": "noise across parameters",
    "antithetic draws": "noise across steps",
    "rows equal up to sign": "noise within a step",
    "norms without biases": "sensitivity",
    "no clipping where norms overflow": "sensitivity",
    "factors 2 % too large": "clipped sums",
    "weights also moved by the sum": "weights",
    "moments of the sum": "weights",
    "empty batches skipped": "empty batches",
    "empty batches left out": "small sets",
    "a record twice in a batch": "records together",
}
"""Fault -> one of the checks that catch it."""


@cache
def settings_of(**flags):
    return resolve({"scenario": "digits_lo", "num_epochs": 6, **flags})


@cache
def claim():
    return claim_of_settings(settings_of())


def alarms(models=None):
    """Names of the checks that raise an alarm; `models` is the size of a stack."""
    settings, told = settings_of(), claim()
    shares = {"dirac": 120 // (models or 1), "records": 6 // (models or 1), "real": 100}
    sets = [
        audit_set_of(settings, blobs(), **shares, seed=3, model=s, padded=models is not None)
        for s in range(models or 1)
    ]
    try:
        seen = run(settings, sets if models else sets[0], told.mechanism, seed=3)
    except ValueError as refusal:  # the trainer's own check before the first step
        return ["training", str(refusal)]
    found = mechanism_checks(seen, told, 0.975)
    return [check.name for check in found if check.verdict == ALARM]


@pytest.mark.slow
@pytest.mark.parametrize("models", [None, 3])
def test_the_trainer_itself_passes(models):
    assert alarms(models) == []


@pytest.mark.slow
def test_saturated_records_are_no_reason_to_refuse():
    """Of such a first batch the gradients move by a thousandth with a rounding error of inputs."""
    settings = settings_of()
    dataset = load_dataset("digits", ".")
    data, _ = prepare("digits", dataset)
    sets = audit_set_of(settings, data, dirac=300, records=30, real=120, seed=18)
    seen = run(settings, sets, claim().mechanism, seed=18, replay_steps=0)
    assert seen.steps == settings.num_steps and not seen.probed.refused


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected call of")  # of a trainer that skips steps
@pytest.mark.parametrize("models", [None, 3])
@pytest.mark.parametrize("name", planted.ALL)
def test_every_fault_is_caught(name, models, monkeypatch):
    planted.ALL[name](monkeypatch)
    found = alarms(models)
    assert found
    if name in CAUGHT_BY:
        assert CAUGHT_BY[name] in found or found[0] == "training", found


def stream_of_its_own(patch):
    """The noise of every model of a stack is drawn from the first one's generator state."""

    def faulty(self):
        std = self.noise_multiplier * self.max_grad_norm
        rows = [p.detach()[0] for p in self.params]
        drawn = private_optimizer.gaussian_like(rows, std, self.generators[0])
        for parameter, noise in zip(self.params, drawn):
            parameter.grad = noise.expand_as(parameter) + parameter.summed_grad

    patch.setattr(stack.stacked_optimizer(), "add_noise", faulty)


def one_seed(patch):
    """Splits do not count for the random streams, so all models have the same ones."""
    real = Streams.of
    first = []

    def faulty(train_seed, seeds):
        first.append(seeds)
        return real(train_seed, first[0])

    patch.setattr(Streams, "of", staticmethod(faulty))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "models", "caught"),
    [
        (stream_of_its_own, 3, "noise across steps"),
        (one_seed, 3, "streams"),
        (one_seed, None, "noise across steps"),
    ],
)
def test_models_that_share_their_noise_are_caught(fault, models, caught, monkeypatch):
    fault(monkeypatch)
    assert caught in alarms(models)


@pytest.mark.slow
def test_a_fault_in_a_module_of_the_fleets_is_seen_by_the_command(monkeypatch, capsys, tmp_path):
    """The audit looks the code up when it runs, not when it is imported."""

    class Lazy(dpsgd.DPSGD):
        def __init__(self, *args, noise_multiplier, **named):
            super().__init__(*args, noise_multiplier=noise_multiplier / 2, **named)

    monkeypatch.setattr(train, "DPSGD", Lazy)
    words = ["digits_lo", "--num_epochs", "5", "--canaries", "100", "--record_canaries", "0"]
    path = tmp_path / "audit.json"
    assert main(["audit-train", *words, "--seed", "1", "--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("ALARM: the trainer does not meet digits_lo's claim")
    assert "(a single model)" in out and "(10 models in a stack)" not in out.splitlines()[0]


def test_both_ways_in_which_a_fleet_trains_are_audited(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "mico_competition.audit.trainer.audit.audit_trainer",
        lambda settings, data, **options: seen.append((options["stack"], options["level"])),
    )
    audit_paths(settings_of(), blobs())
    assert seen == [(10, 0.975), (1, 0.975)]
    seen.clear()
    audit_paths(resolve({"scenario": "cifar10_lo"}), blobs())
    audit_paths(settings_of(grad_sample_mode="hooks"), blobs())
    assert seen == [(1, 0.95), (1, 0.95)]


@pytest.mark.slow
def test_a_trainer_that_refuses_is_an_alarm(monkeypatch):
    def refuses(*args, **named):
        raise ValueError("This model cannot be trained privately: no.")

    monkeypatch.setattr(dpsgd.DPSGD, "step", refuses)
    audit = audit_trainer(settings_of(), blobs(), dirac=100, records=0, claim=claim())
    assert audit.alarms == ["training"] and "cannot be trained" in audit.checks[0].says


@pytest.mark.slow
def test_more_epsilon_than_was_asked_for_is_an_alarm(monkeypatch):
    """Half of the noise for the target, with the epsilon that it costs, which exceeds the
    target."""
    real = train.mechanism_of
    weak = type(real(settings_of()))
    monkeypatch.setattr(
        train,
        "mechanism_of",
        lambda settings: weak(
            real(settings).noise_multiplier / 2, settings.sample_rate, settings.num_steps
        ),
    )
    told = claim_of_settings(settings_of())
    assert told.target == 4 < told.epsilon
    audit = audit_trainer(settings_of(), blobs(), dirac=100, records=0, real=50, replay_steps=0)
    assert "epsilon" in audit.alarms


# --- p-values

SHAPES = {"a.weight": (32, 80), "a.bias": (32,), "b.weight": (10, 32), "b.bias": (10,)}


def rows_of(z):
    """Rows of noise of two models."""
    kept, names, sizes, starts, start = {}, [], [], [], 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        kept[name] = slice(start, start + size)
        for at in range(0, size, BLOCK):
            names.append(name)
            sizes.append(min(BLOCK, size - at))
            starts.append(start + at)
        start += size
    rows = NoiseRows(kept, np.array(sizes), names)
    for number, row in enumerate(z):
        rows.step.append(number // 2)
        rows.model.append(number % 2)
        rows.values.append(row.astype(np.float32))
        rows.squares.append(np.add.reduceat(row**2, starts))
    return rows


@pytest.mark.slow
def test_p_values_are_no_smaller_than_they_say():
    rng, found = np.random.default_rng(0), {}
    size, runs = sum(int(np.prod(shape)) for shape in SHAPES.values()), 60
    for _ in range(runs):
        rows = rows_of(rng.normal(size=(16, size)))
        z = noise_tests.matrix_of(rows, standardised=False)
        tested = {
            "little": noise_tests.too_little(rows),
            "distribution": noise_tests.distribution(rows, z, rng),
            "steps": noise_tests.across_steps(rows, z),
            "within": noise_tests.within_a_step(rows, z),
            "parameters": noise_tests.across_parameters(rows, z),
            "dimensions": noise_tests.spectrum(rows, z, SHAPES),
            "coordinates": over_all_steps(
                rng.normal(size=(20, 2, 30)).astype(np.float32), standardised=False
            ),
        }
        for name, finding in tested.items():
            found.setdefault(name, []).append(finding.p)
    for name, p in found.items():
        assert np.mean(np.array(p) < 0.1) < 0.26, name  # 60 runs of 10 %, and four deviations
        assert min(p) > 1e-4, name


def test_what_is_found_is_named():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(16, sum(int(np.prod(shape)) for shape in SHAPES.values())))
    z[:, 2570] *= 0.01
    finding = noise_tests.too_little(rows_of(z))
    assert finding.p < 1e-9 and finding.says == "a coordinate of a.bias has too little noise"
    z[7] = z[3]
    rows = rows_of(z)
    finding = noise_tests.across_steps(rows, noise_tests.matrix_of(rows, standardised=False))
    assert finding.p < 1e-9 and "step 1 of model 1" in finding.says and "step 3" in finding.says
