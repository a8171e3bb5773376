"""The results of attacks on one's own models: numbers with intervals, tables, figures and files.

`mico.evaluate` returns `Results`, which maps each attack's name to its `AttackResult`.  Scores of
all target models are pooled and one threshold holds for all of them, as everywhere in this package.
Intervals are over target models (`scoring.intervals`): from 20 models on by a bootstrap over
models, from two to five by Student's t, between them the wider of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mico_competition.evaluation import results_file, results_table
from mico_competition.evaluation.attack_result import AttackResult
from mico_competition.evaluation.measure import (
    LEVEL,
    compare,
)
from mico_competition.evaluation.paired import Paired, paired
from mico_competition.evaluation.rows import Evaluation
from mico_competition.support.made import facts
from mico_competition.support.spelling import nearest

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mico_competition.evaluation.figures import Limits, Scale
    from mico_competition.support.files import PathLike


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
        attacks: Sequence[str] | str | None = None,
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
            attacks: names of the attacks to draw, in this order, or one name; by default all.
            bands: whether to draw the interval of the TPR along each curve: that of `tpr` at each
                false positive rate, which holds there by itself.
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

        if isinstance(attacks, str):
            attacks = [attacks]
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
