"""The results of attacks on one's own models: numbers with intervals, tables, figures and files.

`mico.evaluate` returns `Results`, which maps each attack's name to its `AttackResult`.  Scores of
all target models are pooled and one threshold holds for all of them, as everywhere in this package.
Intervals are over target models (`scoring.intervals`): from 20 models on by a bootstrap over
models, from two to five by Student's t, between them the wider of both.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mico_competition.attacks.cost import NO_COST, Cost
from mico_competition.evaluation import results_file, results_table
from mico_competition.evaluation.measure import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Measured,
    at_rate,
    compare,
    measure,
)
from mico_competition.evaluation.paired import Paired, paired
from mico_competition.evaluation.rows import Evaluation, Row
from mico_competition.scoring.curve import RATES
from mico_competition.support.made import facts
from mico_competition.support.spelling import nearest

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mico_competition.evaluation.figures import Limits, Scale
    from mico_competition.support.files import PathLike

FEWEST_ACCEPTED = 5  # non-members at the first rate of a band
DRAWN = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, *RATES)
"""False positive rates of the bands of figures, as far as the non-members resolve them."""


BY_RATE = {"TPR_FPR_1000": 0.1, "TPR_FPR_100": 0.01, "TPR_FPR_10": 0.001}


class Number(NamedTuple):
    """A number with its 95 % interval; `low` and `high` are nan if the interval is not known.

    >>> value, low, high = Number(0.5, 0.25, 0.75)
    >>> print(Number(0.5, 0.25, 0.75))
    0.500 [0.250, 0.750]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        words = f"{self.value:.3f}"
        return words if math.isnan(self.low) else f"{words} [{self.low:.3f}, {self.high:.3f}]"


class Roc(NamedTuple):
    """A ROC curve: float64[points] each, from (0, 0) to (1, 1), never decreasing."""

    fpr: np.ndarray
    tpr: np.ndarray


class UnresolvedRate(UserWarning):
    """A false positive rate is below that of one non-member."""


@dataclass(frozen=True, eq=False)
class Points:
    """The scored points of an attack: for each target model, bool[points] and float64[points]."""

    truth: np.ndarray
    scores: np.ndarray
    known: np.ndarray | None = None

    @property
    def measured(self) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Truth and scores of the points whose membership is known, one array for each model."""
        if self.known is None:
            return list(self.truth), list(self.scores)
        parts = [(t[k], s[k]) for t, s, k in zip(self.truth, self.scores, self.known)]
        return [truth for truth, _ in parts], [scores for _, scores in parts]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """One attack: its scores, and the numbers that are measured from them.

    Attributes:
        name: of the attack.
        title: what it does, in a line.
        white_box: whether it uses the targets' weights.
        measured: the metrics with their intervals, and the ROC curve.
        seconds: wall-clock time of the attack.
        cost: its CPU seconds, and the number of models and records that it used.
        gain: metric -> its paired gain over the baseline; None for the baseline itself.
        points: truth and scores; None if they were loaded from a file without them.
        resamples, seed: of the intervals.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((8, 200)) < 0.5
    >>> result = AttackResult.of("mine", truth, rng.normal(size=truth.shape) + truth)
    >>> print(result.tpr(fpr=0.1), result.auc)
    0.380 [0.313, 0.485] 0.753 [0.716, 0.787]
    """

    name: str
    title: str
    white_box: bool
    measured: Measured
    seconds: float = 0.0
    cost: Cost = NO_COST
    gain: Mapping[str, Estimate] | None = None
    points: Points | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    _rates: dict[tuple[float, float], Estimate] = field(default_factory=dict, repr=False)
    _banded: list[Measured] = field(default_factory=list, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        truth: Any,
        scores: Any,
        *,
        known: Any = None,
        title: str = "",
        white_box: bool = False,
        seconds: float = 0.0,
        cost: Cost = NO_COST,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> AttackResult:
        """Measure the scores of an attack.

        Args:
            name: of the attack.
            truth: bool[targets, points], whether each point is a member.
            scores: float[targets, points], finite, larger for likelier members, comparable over
                models.
            known: bool[targets, points], where the membership is known; by default everywhere.
                Other points do not count.
            title: what the attack does, in a line.
            white_box: whether it uses the targets' weights.
            seconds: its wall-clock time.
            cost: see `attacks.cost`.
            resamples: draws of models for the intervals, the same for all attacks.
            seed: of the draws, the same for all attacks.

        Raises:
            ValueError: on scores that are not finite, on shapes that differ, if all known points
                are members or none.
        """
        points = _points(truth, scores, known)
        measured = measure(*points.measured, resamples=resamples, seed=seed)
        return cls(
            name,
            title,
            white_box,
            measured,
            seconds,
            cost,
            points=points,
            resamples=resamples,
            seed=seed,
        )

    @property
    def truth(self) -> np.ndarray:
        """bool[targets, points], whether each point is a member."""
        return self._kept().truth

    @property
    def scores(self) -> np.ndarray:
        """float64[targets, points], larger for likelier members."""
        return self._kept().scores

    @property
    def auc(self) -> Number:
        """The area under the ROC curve in [0, 1], with its 95 % interval; 0.5 by guessing."""
        return _number(self.measured["AUC"])

    def tpr(self, fpr: float, *, level: float = LEVEL) -> Number:
        """The best true positive rate below a false positive rate, with its interval.

        Args:
            fpr: in (0, 1); the rule is that of the competition, a false positive rate strictly
                below `fpr`.
            level: of the interval, in (0, 1).

        Returns:
            `Number(value, low, high)`, rates in [0, 1].  The interval is over target models, by
            the method that the module describes; it is nan for a single model, and of two to five
            models if fewer than three non-members are accepted.  An `fpr` below 1 / non-members
            allows no false positive at all: then the value is the TPR without any, the interval
            widens accordingly, and the warning `UnresolvedRate` says so.

        Raises:
            ValueError: if `fpr` or `level` is not in (0, 1); if the result was loaded from a file
                without scores, and the file has no such rate.
        """
        return _number(self._at(fpr, level))

    def _at(self, fpr: float, level: float) -> Estimate:
        """The estimate of `tpr`; with the data for comparisons unless it comes from a file."""
        for name, value in (("fpr", fpr), ("level", level)):
            if not isinstance(value, Real) or not 0 < value < 1:
                raise ValueError(
                    f"Expected {name}={value!r} in (0, 1): give a fraction, such as 0.01 for 1%."
                )
        if fpr * self.measured.nonmembers < 1:
            warnings.warn(
                f"fpr={fpr:g} is less than one of {self.measured.nonmembers:,} non-members: this "
                "is the TPR without any false positive. Attack more models or records to resolve "
                "smaller rates.",
                UnresolvedRate,
                stacklevel=3,
            )
        if (fpr, level) not in self._rates:
            self._rates[fpr, level] = self._measured_at(fpr, level)
        return self._rates[fpr, level]

    def _measured_at(self, fpr: float, level: float) -> Estimate:
        reported = next((key for key, rate in BY_RATE.items() if rate == fpr), None)
        if reported is not None and level == LEVEL:
            return self.measured[reported]
        if self.points is None and level == LEVEL and fpr in self.measured.bands:
            value = float(self.measured.tpr[self.measured.fpr < fpr].max())
            return Estimate(value, *self.measured.bands[fpr], np.zeros(0))
        truth, scores = self._kept().measured
        options = {"resamples": self.resamples, "seed": self.seed}
        return at_rate(truth, scores, fpr, level=level, **options)

    def with_bands(self) -> Measured:
        """The metrics, the ROC curve and the intervals along it, computed when first needed."""
        if self.points is None:
            return self.measured
        if not self._banded:
            outside = self.measured.nonmembers
            rates = [rate for rate in DRAWN if rate in RATES or rate * outside >= FEWEST_ACCEPTED]
            truth, scores = self.points.measured
            self._banded.append(
                measure(truth, scores, resamples=self.resamples, seed=self.seed, rates=rates)
            )
        return self._banded[0]

    def roc(self) -> Roc:
        """The ROC curve over all thresholds, the points of all target models pooled.

        Whoever has the scores can read the labels off the exact curve: publish a figure of it only
        where the labels may be known.
        """
        return Roc(self.measured.fpr, self.measured.tpr)

    def plot(self, **options: Any) -> Figure:
        """Draw the ROC curve; the arguments and the figure are those of `Results.plot`."""
        return Results([self]).plot(**options)

    def row(self) -> Row:
        """The attack as a row of an evaluation's tables and pages."""
        gain = None if self.gain is None else dict(self.gain)
        return Row(
            self.name,
            self.title,
            self.white_box,
            self.with_bands(),
            gain,
            self.seconds,
            self.cost,
        )

    def __str__(self) -> str:
        return str(Results([self]))

    def _kept(self) -> Points:
        if self.points is None:
            raise ValueError(
                f"The result of {self.name!r} was saved without its scores, which this needs: save "
                "it with `save(path, scores=True)`."
            )
        return self.points


class Results(Mapping[str, AttackResult]):
    """The results of several attacks on the same target models, by the attack's name.

    A notebook shows them as a table, `print` as text.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((8, 200)) < 0.5
    >>> noise = rng.normal(size=truth.shape)
    >>> weak, strong = AttackResult.of("a", truth, noise + truth), noise + 2 * truth
    >>> results = Results([weak, AttackResult.of("b", truth, strong)])
    >>> list(results), results["b"].name
    (['a', 'b'], 'b')
    >>> results.compare("b", "a", fpr=0.1).low > 0
    True
    """

    def __init__(
        self,
        attacks: Sequence[AttackResult],
        *,
        against: str | None = None,
        subject: str = "",
        phase: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Collect attacks that were measured on the same points.

        Args:
            attacks: at least one, of different names, each by `AttackResult.of` with the same
                truth, resamples and seed.
            against: the attack that gains are measured over; by default the first.
            subject: what was attacked, such as a scenario's name, for headings.
            phase: of the target models, where they are of a competition.
            about: further facts to keep, such as where models come from; `date`, `versions`,
                `seed` and `resamples` are added.

        Raises:
            ValueError: if there are no attacks, two share a name, `against` is none of them, or
                their points differ.
        """
        names = [attack.name for attack in attacks]
        if not names:
            raise ValueError("Expected at least one attack for results, got none.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"Expected attacks of different names, got two named {twice!r}.")
        self.against = names[0] if against is None else against
        base = attacks[self._index(names, self.against)]
        for attack in attacks:
            _check_same(attack, base)
        self.subject, self.phase = subject, phase
        self._attacks = {a.name: _with_gain(a, base) for a in attacks}
        made = {"resamples": base.resamples, "seed": base.seed}
        self.about: dict[str, Any] = {**facts(), **made, **(about or {})}

    def __getitem__(self, name: str) -> AttackResult:
        self._index(list(self._attacks), name)
        return self._attacks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._attacks)

    def __len__(self) -> int:
        return len(self._attacks)

    def __contains__(self, name: object) -> bool:
        return name in self._attacks

    @staticmethod
    def _index(names: list[str], name: str) -> int:
        if name not in names:
            close = nearest(name, names) if isinstance(name, str) else []
            meant = f": did you mean {close[0]!r}?" if close else "."
            raise UnknownAttack(
                f"There is no result of attack {name!r}{meant} There are: {', '.join(names)}."
            )
        return names.index(name)

    @property
    def names(self) -> list[str]:
        """The names of the attacks, in the order in which they were given."""
        return list(self._attacks)

    def compare(
        self, one: str, other: str | None = None, *, fpr: float = 0.1, level: float = LEVEL
    ) -> Paired:
        """The TPR of one attack minus that of another below a false positive rate, paired.

        Both are measured on the same resamples of models, so that differences between models
        cancel; the p-value is two-sided (docs/METHODS.md, section 7.5).

        Args:
            one: the name of an attack.
            other: the name of the attack to compare it with; by default the baseline.
            fpr: in (0, 1).
            level: of the interval, in (0, 1).

        Returns:
            `Paired(difference, low, high, p_value)`; the interval and the p-value are nan for a
            single target model, which says nothing of how models differ.

        Raises:
            ValueError: as `AttackResult.tpr`; if a result was loaded from a file without scores.
            KeyError: on the name of another attack.
        """
        pair = [self[one], self[self.against if other is None else other]]
        for attack in pair:
            attack._kept()
        estimates = [attack._at(fpr, level) for attack in pair]
        return paired(estimates[0], estimates[1], pair[0].measured.models, level=level)

    def to_frame(self, *, gain: bool = False) -> pandas.DataFrame:
        """The numbers as a pandas frame, with one row for each attack.

        Args:
            gain: whether to give each metric's paired gain over the baseline instead; the
                baseline then has no row.

        Returns:
            A frame of floats, indexed by the attack's name.  Its columns have two levels: a metric
            with "value", "low" and "high", and "time" with "seconds" and "cpu_seconds".

        Raises:
            ImportError: if pandas is not installed.
        """
        return results_table.frame(self._attacks.values(), gain)

    def plot(
        self,
        ax: Axes | Sequence[Axes] | None = None,
        *,
        scale: Scale = "both",
        attacks: Sequence[str] | None = None,
        bands: bool = True,
        limits: Limits | None = None,
        epsilon: float | None = None,
        delta: float = 1e-5,
        mu: float | None = None,
        width: str | float | None = None,
        file: PathLike | None = None,
    ) -> Figure:
        """Draw the ROC curves with 95 % bands, on linear and on logarithmic axes.

        Args:
            ax: matplotlib axes to draw in, one for each scale; by default a new figure.
            scale: "both", "linear" or "log".
            attacks: names of the attacks to draw, in this order; by default all.
            bands: whether to draw the interval of the TPR along each curve; a band holds at each
                false positive rate by itself.
            limits: the largest TPR that a mechanism permits, drawn as a line: a
                `training.accounting.Mechanism`, an `audit.claims.PrivacyClaim`, or a mapping from a
                label to (false positive rates, true positive rates).
            epsilon, delta: draw the limit of (epsilon, delta)-differential privacy.
            mu: draw the limit of mu-Gaussian differential privacy.
            width: "single" (3.5 inches) or "double" (7.16 inches) for a paper's columns, with type
                of 8 points; or a width in inches; by default a figure for a screen.
            file: where to save the figure as well, such as "roc.pdf"; text in PDF and SVG files
                stays text.

        Returns:
            The matplotlib figure.

        Raises:
            ValueError: on an unknown scale, width or attack.
            ImportError: if matplotlib is not installed.
        """
        from mico_competition.evaluation import figures

        chosen = [self[name] for name in (self.names if attacks is None else attacks)]
        return figures.plot_roc(
            {a.name: a.with_bands() if bands else a.measured for a in chosen},
            ax=ax,
            scale=scale,
            bands=bands,
            limits=figures.limit_curves(limits, epsilon=epsilon, delta=delta, mu=mu),
            width=width,
            file=file,
        )

    def save(self, path: PathLike, *, scores: bool = False) -> None:
        """Write `path` as JSON and, beside it, the same results as an HTML page.

        Neither file has truth or scores, and the curves in both are the coarse ones of
        `scoring.curve`, from which no record's membership can be read; so both may be published if
        the numbers may.  With `scores`, the JSON file has truth, scores and exact curves as well:
        only its owner can read it, and it must not be published where labels are secret.

        Args:
            path: of the JSON file; the page gets the same name with the ending .html.  A
                folder that does not exist is made.
            scores: whether to keep truth and scores, which `tpr` at any rate and `compare` need.

        Raises:
            ValueError: if `path` cannot be written.
        """
        results_file.save(self, path, scores=scores)

    @classmethod
    def load(cls, path: PathLike) -> Results:
        """Read what `save` wrote.

        Args:
            path: of the JSON file.

        Raises:
            ValueError: if the file is not one that `save` writes, naming the field that is wrong.
            FileNotFoundError: if there is none.
        """
        return results_file.load(path)

    def evaluation(self) -> Evaluation:
        """The results in the form that the tables and pages of `mico evaluate` take."""
        rows = tuple(attack.row() for attack in self._attacks.values())
        subject = self.subject or "Own models"
        return Evaluation(subject, self.phase, "own", False, self.against, rows)

    def __repr__(self) -> str:
        return results_table.text(self)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return results_table.html(self)


class UnknownAttack(KeyError, ValueError):
    """There is no result of an attack of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


def _number(estimate: Estimate) -> Number:
    return Number(estimate.value, estimate.low, estimate.high)


def _points(truth: Any, scores: Any, known: Any) -> Points:
    """The checked points."""
    member, values = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if member.ndim != 2 or member.shape != values.shape:
        raise ValueError(
            "Expected truth and scores of one shape [targets, points], got "
            f"{member.shape} and {values.shape}."
        )
    if known is None:
        where = None
    else:
        where = np.asarray(known, dtype=bool)
        if where.shape != member.shape:
            raise ValueError(
                f"Expected known of the shape of truth, {member.shape}, got {where.shape}."
            )
    used = member if where is None else member[where]
    if not ((used == 0) | (used == 1)).all():
        raise ValueError(
            "Expected truth to be True (member) or False (non-member) at each known point: pass "
            "`known`, a mask, if the membership of some points is not known."
        )
    return Points(member == 1, values, where)


def _check_same(attack: AttackResult, base: AttackResult) -> None:
    """ValueError unless both were measured on the same points and resamples."""
    same = (attack.resamples, attack.seed) == (base.resamples, base.seed)
    if attack.points is not None and base.points is not None:
        one, other = attack.points, base.points
        same = same and np.array_equal(one.truth, other.truth)
        same = same and (one.known is None) == (other.known is None)
        if one.known is not None and other.known is not None:
            same = same and np.array_equal(one.known, other.known)
    if not same:
        raise ValueError(
            f"Expected attacks {attack.name!r} and {base.name!r} to have the same truth, resamples "
            "and seed: measure both on the same points."
        )


def _with_gain(attack: AttackResult, base: AttackResult) -> AttackResult:
    """The attack with its gain over the baseline; one from a file keeps its own."""
    if attack.points is None:
        return attack
    gain = None if attack is base else compare(attack.measured, base.measured)
    return replace(attack, gain=gain)
