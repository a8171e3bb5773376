"""The built-in attacks: one table, with one row for each attack.

To add an attack, add a row to `TABLE` and write its function: `mico attacks`, `mico attack`, `mico
evaluate` and `mico audit` take both from here. A row names its function as a string, and the
function is imported when the attack is used; so the list needs neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mico_competition.support.extras import install, where
from mico_competition.support.spelling import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from mico_competition.attacks.problem import Attack, Problem

BLACK_BOX = "black box"  # the models' outputs at the records
QUERIES = "queries"  # black box, and outputs at records that were changed
WHITE_BOX = "white box"  # the weights


@dataclass(frozen=True)
class Row:
    """An attack.

    Attributes:
        name: as on the command line.
        title: what it does, in a line.
        source: the paper or code that it comes from.
        function: "module:function". With a `signal` it takes arrays, as the functions of
            `mico_competition.attacks` do; without, it takes a `Problem`. "" means the target's own
            signal, without a comparison.
        signal: the scalar signal for a function of arrays.
        options: keyword arguments of the function.
        access: BLACK_BOX, QUERIES or WHITE_BOX.
        cost: the time for 50 targets with 100 shadow models of Purchase-100's shape at a tenth of
            its size, on one core, with cached signals.
        least_shadows: the smallest number of shadow models that it works with; 0 if it uses none.
        leaves_one_out: whether it can leave a target out of its own shadow models.  Attacks that
            cannot are evaluated by cross-fitting.
        all_records: whether it needs the signals of all records of the dataset.
        signals_only: whether scalar signals are enough; others read logits or load models.
        known_training_set: whether it uses the known rest of the training set
            (the DP distinguisher); it works without.
        flags: options that the command line offers, each False unless it is given.
        aliases: other names of it.
        alias_of: the name of the attack that this is another name of; "" if it is none.
    """

    name: str
    title: str
    source: str
    function: str = ""
    signal: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    access: str = BLACK_BOX
    cost: str = "under a second"
    least_shadows: int = 2
    leaves_one_out: bool = True
    all_records: bool = False
    signals_only: bool = True
    known_training_set: bool = False
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    alias_of: str = ""


_CALIBRATE = "mico_competition.attacks.scores.calibration:calibrate"
_WINNER = "mico_competition.attacks.scores.calibration:winner_2023"
_LIRA = "mico_competition.attacks.scores.lira:lira"
_BAVARIA = "mico_competition.attacks.scores.bavaria:bavaria"
_RMIA = "mico_competition.attacks.scores.rmia:rmia"
_EB = "mico_competition.attacks.scores.empirical_bayes:eb_likelihood_ratio"
_STACK = "mico_competition.attacks.stacking.black_box:stack"

_SONG = "Song and Mittal, 2021 (arXiv 2003.10595)"
_RUNNER_UP = "DevPranjal/mico-first-principles, second in Purchase-100, 2023"
_WINNERS = "tianjian10/MICO, the winner of all four tracks, 2023"
_WATSON = "Watson et al., ICLR 2022 (arXiv 2111.08440)"
_CARLINI = "Carlini et al., S&P 2022 (arXiv 2112.03570)"
_ZARIFZADEH = "Zarifzadeh et al., ICML 2024 (arXiv 2312.03262)"
_OURS = "ours: docs/METHODS.md"

_learned = partial(Row, leaves_one_out=False, least_shadows=4, signals_only=False)
_decoder = partial(_learned, source=_OURS, access=WHITE_BOX, all_records=True)

# name, title, source, function, signal, options; then what differs from the defaults of a row
# fmt: off
TABLE: tuple[Row, ...] = (
    Row("threshold", "minus the loss itself", "Yeom et al., CSF 2018 (arXiv 1709.01604)",
        "", "loss", least_shadows=0, aliases=("loss",)),
    Row("entropy", "minus the output's entropy", "Shokri et al., S&P 2017 (arXiv 1610.05820)",
        "", "entropy", least_shadows=0),
    Row("modified-entropy", "minus modified entropy", _SONG,
        "", "modified_entropy", least_shadows=0),
    Row("first-principles", "the runner-up's LiRA, offline by default, mistakes corrected",
        _RUNNER_UP, "mico_competition.attacks.winners.first_principles:first_principles_attack",
        flags=("global_variance", "logit_scaling", "stable_logit_scaling", "online_attack")),
    Row("first-principles-sent",
        "as he sent it: one variance, and OUT sets that are chance, by a mistake with indices",
        _RUNNER_UP, "mico_competition.attacks.winners.first_principles:as_sent"),
    Row("fleshman", "confidence less that of one OUT model",
        "wfleshman/MICO_SST, second in SST-2, 2023",
        "mico_competition.attacks.scores.reference:out_reference", "confidence"),
    Row("quantile", "quantile regression of OUT shadow models' logits",
        "Bertran et al., NeurIPS 2023 (arXiv 2307.03694)",
        "mico_competition.attacks.scores.quantile:quantile_attack", leaves_one_out=False),

    Row("winner-2023", "the winner's choice of signal and formula", _WINNERS,
        "mico_competition.attacks.winners.winner_2023:winner_2023_attack"),
    Row("calibrate-loss-in", "the winner's in formula on loss", _WINNERS,
        _WINNER, "loss", {"formula": "in"}),
    Row("calibrate-loss-midpoint", "the winner's midpoint formula on loss", _WINNERS,
        _WINNER, "loss", {"formula": "midpoint"}),
    Row("calibrate-loss-standardised", "the winner's standardised formula on loss", _WINNERS,
        _WINNER, "loss", {"formula": "standardised"}),
    Row("calibrate-confidence-in", "the winner's in formula on confidence", _WINNERS,
        _WINNER, "confidence", {"formula": "in"}),
    Row("calibrate-confidence-midpoint", "the winner's midpoint formula on confidence", _WINNERS,
        _WINNER, "confidence", {"formula": "midpoint"}),
    Row("calibrate-confidence-standardised", "the winner's standardised formula on confidence",
        _WINNERS, _WINNER, "confidence", {"formula": "standardised"}),
    Row("calibrate-loss-out", "loss less its mean OUT", _WATSON,
        _CALIBRATE, "loss", {"centre": "out"}),
    Row("calibrate-confidence-out", "confidence less its mean OUT", _WATSON,
        _CALIBRATE, "confidence", {"centre": "out"}),
    Row("calibrate-logit-out", "logit less its mean OUT", _WATSON,
        _CALIBRATE, "logit", {"centre": "out"}),

    Row("lira-online", "LiRA on the logit, online, a variance a point", _CARLINI,
        _LIRA, "logit", aliases=("lira",)),
    Row("lira-online-global", "LiRA on the logit, online, one variance", _CARLINI,
        _LIRA, "logit", {"variance": "global"}),
    Row("lira-online-shrunk", "LiRA on the logit, online, variances shrunk", _CARLINI,
        _LIRA, "logit", {"shrinkage": 15.0}),
    Row("lira-offline", "LiRA on the logit, offline, a variance a point", _CARLINI,
        _LIRA, "logit", {"online": False}),
    Row("lira-offline-global", "LiRA on the logit, offline, one variance", _CARLINI,
        _LIRA, "logit", {"online": False, "variance": "global"}),
    Row("lira-offline-shrunk", "LiRA on the logit, offline, variances shrunk", _CARLINI,
        _LIRA, "logit", {"online": False, "shrinkage": 15.0}),
    Row("lira-offline-confidence", "LiRA on confidence, offline, one variance", _CARLINI,
        _LIRA, "confidence", {"online": False, "variance": "global"}),
    Row("bavaria", "BaVarIA-t on the logit", "arXiv 2603.11799",
        _BAVARIA, "logit", {"predictive": "t"}),
    Row("bavaria-normal", "BaVarIA-n on the logit", "arXiv 2603.11799",
        _BAVARIA, "logit", {"predictive": "normal"}),
    Row("rmia", "RMIA on confidence", _ZARIFZADEH, _RMIA, "confidence"),
    Row("rmia-offline", "RMIA on confidence, offline, its a chosen on the shadow models",
        _ZARIFZADEH, _RMIA, "confidence", {"online": False}, cost="seconds"),
    Row("eb", "empirical-Bayes likelihood ratio of logit", _OURS,
        _EB, "logit", least_shadows=3),
    Row("eb-loss", "empirical-Bayes likelihood ratio of loss", _OURS,
        _EB, "loss", least_shadows=3),
    Row("eb-confidence", "empirical-Bayes likelihood ratio of confidence", _OURS,
        _EB, "confidence", least_shadows=3),
    Row("eb-gradient-norm", "empirical-Bayes likelihood ratio of the gradient's norm", _OURS,
        _EB, "gradient_norm", access=WHITE_BOX, cost="a minute", least_shadows=3),

    _learned("neural", "neural network on outputs, losses and their standard scores",
        "Shokri et al. 2017; Salem et al. 2019; Nasr et al. 2019",
        "mico_competition.attacks.stacking.neural:neural", cost="half a minute"),
    _learned("stack",
        "regression on all signals of outputs, of neighbours and of resampled records",
        _OURS, _STACK, access=QUERIES, cost="half a minute, 4 queries a record"),
    _learned("query-stack", "the stack, and the slope along the whitened record",
        _OURS, _STACK, options={"queries": ("resample", "slope")},
        access=QUERIES, cost="a minute, 8 queries a record"),
    _learned("suri", "gradients, neighbours and walks of the CIFAR-10 runner-up",
        "A. Suri, My submission to the MICO Challenge, 2023",
        "mico_competition.attacks.winners.suri:suri", access=WHITE_BOX, cost="minutes to hours"),

    _decoder("trace", "how much of the record's own update is in an MLP's first layer",
        function="mico_competition.attacks.whitebox.mlp.pipeline:trace",
        cost="a minute", least_shadows=3),
    _decoder("joint", "traces of all records decoded jointly (MLPs), plus the logit's ratio",
        function="mico_competition.attacks.whitebox.mlp.pipeline:joint_decoder", cost="minutes"),
    _decoder("whitebox",
        "usually the strongest: of MLPs a stack of signals, traces and decodes, else `layers`",
        function="mico_competition.attacks.whitebox.any_model:whitebox",
        cost="minutes", known_training_set=True, aliases=("best",)),
    _decoder("layers", "decodes of all layers of any model, stacked",
        function="mico_competition.attacks.whitebox.layers.attack:best_layers",
        cost="minutes to an hour"),
)
# fmt: on


def _by_name(table: tuple[Row, ...]) -> dict[str, Row]:
    rows = {row.name: row for row in table}
    for row in table:
        for alias in row.aliases:
            rows[alias] = replace(row, name=alias, aliases=(), alias_of=row.name)
    return rows


ROWS: dict[str, Row] = _by_name(TABLE)
"""All names, aliases last -> row."""

WINNERS_FORMULAS = tuple(row.name for row in TABLE if row.function == _WINNER)

WINNERS_BEST = "winner-best"
"""A row of evaluations that is no attack: the best of these formulas, chosen in hindsight."""


def check_name(name: str) -> Row:
    """The row of a name; ValueError with the nearest names if there is none.

    >>> check_name("lria")
    Traceback (most recent call last):
    ValueError: Unknown attack 'lria': did you mean lira? `mico attacks` lists all.
    """
    if name in ROWS:
        return ROWS[name]
    if name == WINNERS_BEST:
        raise ValueError(
            f"{name} is no attack but a row of `mico evaluate`: the winner's formula that scores "
            f"highest once the labels are known. Name one of {', '.join(WINNERS_FORMULAS)}."
        )
    near = nearest(name, ROWS)
    if near:
        raise ValueError(
            f"Unknown attack {name!r}: did you mean {' or '.join(near)}? `mico attacks` lists all."
        )
    raise ValueError(
        f"Unknown attack {name!r}: `mico attacks` lists all; one of your own is "
        "path/to/file.py:function."
    )


def get_attack(name: str, **flags: bool) -> Attack:
    """The attack with this name, with some of its options set.

    Raises:
        ValueError: with the nearest names, if there is no such name; if the attack has no such
            flag; with the `pip install` line, if the attack needs a package that is missing.
    """
    row = check_name(name)
    unknown = sorted(set(flags) - set(row.flags))
    if unknown:
        raise ValueError(f"Attack {name} has no option {unknown[0]}.")
    return _attack(name, tuple(flag for flag in row.flags if flags.get(flag)))


@cache  # so that one name gives equal attacks
def _attack(name: str, flags: tuple[str, ...]) -> Attack:
    from mico_competition.attacks.problem import Attack

    row = check_name(name)
    if row.alias_of:
        return replace(_attack(row.alias_of, flags), name=name)
    try:
        run = _run(row, flags)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("mico_competition."):
            raise
        raise ValueError(
            f"Attack {name} needs the package {missing.name}, which is not installed: "
            f"`{install(missing.name or '')}`{where()}."
        ) from missing
    return Attack(
        " ".join([name, *(f"--{flag}" for flag in flags)]),
        row.title,
        row.source,
        run,
        leaves_one_out=row.leaves_one_out,
        white_box=row.access == WHITE_BOX,
        all_records=row.all_records,
        least_shadows=row.least_shadows,
    )


def _run(row: Row, flags: Sequence[str]) -> Callable[[Problem], np.ndarray]:
    """What computes the scores of a row; its module is imported here."""
    if not row.function:
        return partial(_own_signal, row.signal)
    module, _, name = row.function.partition(":")
    function = getattr(import_module(module), name)
    options = {**row.options, **dict.fromkeys(flags, True)}
    if row.signal:
        return partial(_of_signal, row.signal, function, options)
    return partial(function, **options) if options else function


def _own_signal(signal: str, problem: Problem) -> np.ndarray:
    """The target's signal itself: no shadow model is used."""
    values = problem.source.get(signal)[problem.targets[:, None], problem.columns]
    scores: np.ndarray = values.astype("float64")
    return scores


def _of_signal(
    signal: str, function: Callable[..., np.ndarray], options: Mapping[str, Any], problem: Problem
) -> np.ndarray:
    """A function of arrays on one signal."""
    return problem.gather(signal).score(function, **options)
