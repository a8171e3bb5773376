"""An audit of a private trainer in one training run: canaries, direct tests, bounds on epsilon.

One-run auditing by Steinke, Nasr and Jagielski (NeurIPS 2023, arXiv 2305.08846) with the gradient
canaries of Nasr et al. (USENIX Security 2023, arXiv 2302.07956). It audits the code that a fleet of
the scenario runs: small models in stacks, and single models, as a fleet trains those that are left
over or tried again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mico_competition.audit.bound import Bound
from mico_competition.audit.checked import check_level
from mico_competition.audit.claims import PrivacyClaim
from mico_competition.audit.gaussian import gaussian_bound
from mico_competition.audit.limits import gaussian_mu
from mico_competition.audit.mechanism_curve import mechanism_curve, mechanism_curve_bound
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.one_run_fdp import one_run_fdp_bound
from mico_competition.audit.tradeoff import gdp_epsilon
from mico_competition.audit.trainer.canary_run import (
    Observed,
    audit_set_of,
    most_record_canaries,
    most_replays,
    parameters_of,
    run,
)
from mico_competition.audit.trainer.checks import ALARM, NOTE, Check, exactly
from mico_competition.audit.trainer.mechanism_tests import mechanism_checks
from mico_competition.audit.trainer.paths import Epoch
from mico_competition.audit.trainer.runner import MakeTrainer
from mico_competition.models.inputs import Data
from mico_competition.training import train
from mico_competition.training.settings import Settings
from mico_competition.training.train_many import stack_of

FEWEST = 100
"""Fewer Dirac canaries than this are refused."""

FEWEST_RECORDS = 20
"""With fewer record canaries no bound is computed."""

DIRAC, BLACK_BOX = "gradient canaries", "loss of record canaries"


@dataclass(frozen=True)
class Proof:
    """A lower bound on epsilon from the scores of one set of canaries.

    Attributes:
        scores: whose scores: DIRAC, BLACK_BOX, or "record canaries in <layer>".
        bound: at its own level, for the report.
        joint: the same with a share of the audit's level, so that all bounds hold jointly.
        ceiling: the epsilon that `joint` must not exceed.
    """

    scores: str
    bound: Bound
    joint: Bound
    ceiling: float

    @property
    def alarm(self) -> bool:
        """Whether the joint bound exceeds its ceiling."""
        return self.joint.epsilon > self.ceiling


@dataclass(frozen=True)
class TrainerAudit:
    """The result of one audited run.

    Attributes:
        settings: of the claimed run.
        claim: epsilon, delta and mechanism.
        level: with this probability a trainer whose claim holds raises no alarm.
        dirac, records, real: gradient canaries, record canaries, and real records trained on.
        let_in: canaries of the first two kinds that the coins let in.
        steps: noisy gradients seen; replayed: repeated steps.
        checks: direct tests.
        proofs: bounds on epsilon.
        seconds: the audit's duration.
        stack: the number of models trained together; 1 for a single model.
        refused: the trainer's message, if it refused to train; then there are no other results.
    """

    settings: Settings
    claim: PrivacyClaim
    level: float
    dirac: int
    records: int
    real: int
    let_in: tuple[int, int]
    steps: int
    replayed: int
    checks: Sequence[Check]
    proofs: Sequence[Proof]
    seconds: float
    stack: int = 1
    refused: str = ""

    @property
    def alarms(self) -> list[str]:
        """Names of the checks and bounds that contradict the claim."""
        return [check.name for check in self.checks if check.verdict == ALARM] + [
            f"epsilon by {proof.bound.method}, {proof.scores}"
            for proof in self.proofs
            if proof.alarm
        ]

    @property
    def notes(self) -> list[str]:
        """Names of the checks whose departure from the claim costs no privacy."""
        return [check.name for check in self.checks if check.verdict == NOTE]

    def proven(self, method: str) -> Bound:
        """The bound by one method from gradient canaries."""
        return next(
            proof.bound
            for proof in self.proofs
            if proof.scores == DIRAC and proof.bound.method == method
        )


def claim_of_settings(settings: Settings) -> PrivacyClaim:
    """The claim that a run with these settings will state in its metadata.

    Raises:
        ValueError: for a run without privacy.
    """
    mechanism = train.mechanism_of(settings)
    if mechanism is None:
        what = f"Scenario {settings.scenario}" if settings.scenario else "A run with --disable_dp"
        raise ValueError(
            f"{what} trains without privacy and claims no epsilon to audit: choose a private "
            "scenario, such as digits_lo."
        )
    delta = settings.target_delta
    return PrivacyClaim(mechanism.epsilon(delta), delta, mechanism, settings.target_epsilon)


def audit_paths(
    settings: Settings, data: Data, *, level: float = 0.95, **options: Any
) -> list[TrainerAudit]:
    """Audit each way in which a fleet with these settings trains: in stacks, and single models.

    Args:
        settings, data, options: see `audit_trainer`.
        level: with this probability a trainer whose claim holds raises no alarm in any.
    """
    paths = list(dict.fromkeys((stack_of(settings), 1)))
    each = 1 - (1 - level) / len(paths)
    return [audit_trainer(settings, data, level=each, stack=n, **options) for n in paths]


def audit_trainer(
    settings: Settings,
    data: Data,
    *,
    dirac: int = 1000,
    records: int | None = None,
    real: int | None = None,
    replay_steps: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    claim: PrivacyClaim | None = None,
    make_trainer: MakeTrainer | None = None,
    epoch: Epoch | None = None,
    progress: bool = False,
    stack: int = 1,
) -> TrainerAudit:
    """Train once with canaries, and compare the run with the claim.

    Args:
        settings: of the run to audit, as `settings.resolve` gives them.
        data: the whole dataset, as `inputs.prepare` gives it.
        dirac: m, gradient canaries, FEWEST or more; each is let in with probability 1/2.
        records: R, mislabelled, blank and large records, let in likewise; by default 200, or as
            many as have gradients that fit into memory.
        real: real records in the training set; by default all len_training. They affect the
            duration, not the mechanism.
        replay_steps: steps to repeat with torch.func; by default as many as take half a minute.
        seed: for all random choices.
        level: in (0, 1).
        claim: by default that of `settings`.
        make_trainer: the audited trainer, called as DPSGD is.
        epoch: draws the batches of an epoch, called as `train.epoch_of` is.
        progress: whether to show a progress bar (see `mico_competition.support.progress`).

    Raises:
        ValueError: if the settings are not private, a number is out of range, or the loss stops
            being finite.
    """
    started = time.perf_counter()
    claim = claim or claim_of_settings(settings)
    check_level(level)
    real = settings.len_training if real is None else real
    parameters = parameters_of(settings)
    if records is None:
        records = most_record_canaries(parameters)
    _check_sizes(dirac, records, real, replay_steps, len(data))
    most = most_replays(parameters + dirac // stack, stack)
    if replay_steps is not None and min(replay_steps, settings.num_steps) > most:
        raise ValueError(
            f"Expected replay_steps={replay_steps} <= {most}: the noise of more steps of such a "
            "model does not fit into memory."
        )
    # A missing package or a claim out of range fails before training.
    mu = gaussian_mu(claim.mechanism)
    gaussian = gdp_epsilon(mu, claim.delta) if math.isfinite(mu) else math.inf
    shares = {"dirac": -(-dirac // stack), "records": -(-records // stack), "real": real}
    sets = [
        audit_set_of(settings, data, **shares, seed=seed, model=model, padded=stack > 1)
        for model in range(stack)
    ]
    half = 1 - (1 - level) / 2
    refused = ""
    try:
        seen = run(
            settings,
            sets if stack > 1 else sets[0],
            claim.mechanism,
            seed=seed,
            make_trainer=make_trainer,
            epoch=epoch,
            replay_steps=replay_steps,
            progress=progress,
        )
    except ValueError as refusal:
        if "is not finite" in str(refusal):
            raise
        refused = str(refusal)
        checks = [Check("training", ALARM, f"it is refused: {refusal}", 1.0, exactly(0.0))]
        steps, replayed, found = 0, 0, []
    else:
        checks = mechanism_checks(seen, claim, half)
        found = proofs(seen, claim, max(claim.epsilon, gaussian), half, level)
        steps, replayed = seen.steps, seen.replayed
    return TrainerAudit(
        settings,
        claim,
        level,
        stack * shares["dirac"],
        stack * shares["records"],
        stack * real,
        (
            sum(int(one.dirac_in.sum()) for one in sets),
            sum(int(one.records_in.sum()) for one in sets),
        ),
        steps,
        replayed,
        checks,
        found,
        time.perf_counter() - started,
        stack,
        refused,
    )


def proofs(
    seen: Observed, claim: PrivacyClaim, gaussian: float, joint: float, level: float
) -> list[Proof]:
    """Bounds on epsilon from gradient canaries by four methods, from record canaries by one.

    Two of the methods need independent scores. Those of gradient canaries are, since each has its
    own noise; those of record canaries are not.

    Args:
        seen: the run.
        claim: epsilon and delta.
        gaussian: the ceiling of bounds that assume a Gaussian mechanism.
        joint: the level at which all hold jointly.
        level: of each reported bound.
    """
    in_layers = seen.scores().items()
    of_records = {f"record canaries in {layer}": found for layer, found in in_layers}
    of_records[BLACK_BOX] = seen.black_box
    let_in = seen.let_in
    if len(let_in) < FEWEST_RECORDS or let_in.all() or not let_in.any():
        of_records = {}
    told = claim.mechanism
    of_dirac = (seen.dirac.let_in, seen.dirac.scores)
    tried: list[tuple[str, float, Callable[..., Bound]]] = [
        (DIRAC, claim.epsilon, partial(one_run_bound, *of_dirac)),
        (
            DIRAC,
            claim.epsilon,
            partial(one_run_fdp_bound, *of_dirac, curve=mechanism_curve(told)),
        ),
        (DIRAC, claim.epsilon, partial(mechanism_curve_bound, *of_dirac, told)),
        (DIRAC, gaussian, partial(gaussian_bound, *of_dirac)),
    ]
    for name, values in of_records.items():
        tried.append((name, claim.epsilon, partial(one_run_bound, let_in, values)))
    share = 1 - (1 - joint) / len(tried)
    found = []
    for name, ceiling, bound in tried:
        alone, joined = (bound(delta=claim.delta, level=at) for at in (level, share))
        found.append(Proof(name, alone, joined, ceiling))
    return found


def _check_sizes(
    dirac: int, records: int, real: int, replay_steps: int | None, len_dataset: int
) -> None:
    """ValueError unless the data allow so many canaries and records."""
    if dirac < FEWEST:
        raise ValueError(
            f"Expected canaries={dirac} >= {FEWEST}: fewer prove nothing; 1000 is usual."
        )
    if records < 0:
        raise ValueError(f"Expected record_canaries={records} >= 0.")
    if not 1 <= real < len_dataset:
        raise ValueError(
            f"Expected real_records={real} from 1 to {len_dataset - 1}, since canaries are made "
            "from a record that is not trained on: give fewer."
        )
    if replay_steps is not None and replay_steps < 0:
        raise ValueError(f"Expected replay_steps={replay_steps} >= 0.")
