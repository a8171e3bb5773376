"""THE LIST of attacks that have a name: what each is, what it needs, what it costs, whose it is.

One line an attack, for `mico attacks` and for messages.  What computes the scores is registered
under the same names, in `attacks/named.py`, `learned`, `whitebox` and `deeper`; this module
imports none of them, so that a wrong name is noticed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from mico_competition.support.spelling import nearest

BLACK_BOX = "black box"  # the models' outputs at the records
QUERIES = "queries"  # black box, and outputs at records that were changed
WHITE_BOX = "white box"  # the weights

WINNERS_FORMULAS = tuple(
    f"calibrate-{signal}-{formula}"
    for signal in ("loss", "confidence")
    for formula in ("in", "midpoint", "standardised")
)


@dataclass(frozen=True)
class Entry:
    """What is said of an attack.

    Attributes:
        name: as on the command line.
        title: what it does, in a line.
        source: the paper or code it is of.
        access: BLACK_BOX, QUERIES or WHITE_BOX.
        known_training_set: whether it uses who else is in the training set, where that is known
            (the DP distinguisher); it works without.
        cost: how long 50 targets with 100 shadow models take of Purchase-100's shape at a tenth
            of its size, on one core, once signals are computed.
        leaves_one_out: whether it can leave a target out of its own shadow models; others are
            evaluated in folds.
        all_records: whether it wants signals of all records of the dataset.
        least_shadows: as few shadow models it works with; 0 if it uses none.
        alias_of: the name of the attack that this is another name of; "" if it is none.
    """

    name: str
    title: str
    source: str
    access: str = BLACK_BOX
    known_training_set: bool = False
    cost: str = "under a second"
    leaves_one_out: bool = True
    all_records: bool = False
    least_shadows: int = 2
    alias_of: str = ""


_CARLINI = "Carlini et al., S&P 2022 (arXiv 2112.03570)"
_WINNER = "tianjian10/MICO, the winner of all four tracks, 2023"
_WATSON = "Watson et al., ICLR 2022 (arXiv 2111.08440)"
_RUNNER_UP = "DevPranjal/mico-first-principles, second in Purchase-100, 2023"
_ZARIFZADEH = "Zarifzadeh et al., ICML 2024 (arXiv 2312.03262)"
_OURS = "ours: docs/METHODS.md"


def _calibrations() -> Iterator[Entry]:
    yield Entry("winner-2023", "the winner's choice of signal and formula", _WINNER)
    for name in WINNERS_FORMULAS:
        _, signal, formula = name.split("-")
        yield Entry(name, f"the winner's {formula} formula on {signal}", _WINNER)
    for signal in ("loss", "confidence", "logit"):
        yield Entry(f"calibrate-{signal}-out", f"{signal} less its mean OUT", _WATSON)


def _likelihood_ratios() -> Iterator[Entry]:
    words = {"": "a variance a point", "-global": "one variance", "-shrunk": "variances shrunk"}
    for kind in ("online", "offline"):
        for ending, variance in words.items():
            yield Entry(f"lira-{kind}{ending}", f"LiRA on the logit, {kind}, {variance}", _CARLINI)
    title = "LiRA on confidence, offline, one variance"
    yield Entry("lira-offline-confidence", title, _CARLINI)
    yield Entry("bavaria", "BaVarIA-t on the logit", "arXiv 2603.11799")
    yield Entry("bavaria-normal", "BaVarIA-n on the logit", "arXiv 2603.11799")
    yield Entry("rmia", "RMIA on confidence", _ZARIFZADEH)
    title = "RMIA on confidence, offline, its a chosen on the shadow models"
    yield Entry("rmia-offline", title, _ZARIFZADEH, cost="seconds")
    for name, signal in (("eb", "logit"), ("eb-loss", "loss"), ("eb-confidence", "confidence")):
        title = f"empirical-Bayes likelihood ratio of {signal}"
        yield Entry(name, title, _OURS, least_shadows=3)
    yield Entry(
        "eb-gradient-norm",
        "empirical-Bayes likelihood ratio of the gradient's norm",
        _OURS,
        access=WHITE_BOX,
        cost="a minute",
        least_shadows=3,
    )


def _others() -> Iterator[Entry]:
    for name, title, source in (
        ("threshold", "minus the loss itself", "Yeom et al., CSF 2018 (arXiv 1709.01604)"),
        ("entropy", "minus the output's entropy", "Shokri et al., S&P 2017 (arXiv 1610.05820)"),
        ("modified-entropy", "minus modified entropy", "Song and Mittal, 2021 (arXiv 2003.10595)"),
    ):
        yield Entry(name, title, source, least_shadows=0)
    yield Entry("first-principles", "the runner-up's offline LiRA, mistakes corrected", _RUNNER_UP)
    yield Entry(
        "first-principles-sent",
        "as he sent it: one variance, and OUT sets that are chance, by a mistake with indices",
        _RUNNER_UP,
    )
    title = "confidence less that of one OUT model"
    yield Entry("fleshman", title, "wfleshman/MICO_SST, second in SST-2, 2023")
    title = "quantile regression of OUT shadow models' logits"
    source = "Bertran et al., NeurIPS 2023 (arXiv 2307.03694)"
    yield Entry("quantile", title, source, leaves_one_out=False)


def _learned() -> Iterator[Entry]:
    learned = partial(Entry, leaves_one_out=False, least_shadows=4)
    yield learned(
        "neural",
        "neural network on outputs, losses and their standard scores",
        "Shokri et al. 2017; Salem et al. 2019; Nasr et al. 2019",
        cost="half a minute",
    )
    yield learned(
        "stack",
        "regression on all signals of outputs, of neighbours and of resampled records",
        _OURS,
        access=QUERIES,
        cost="half a minute, 4 queries a record",
    )
    yield learned(
        "query-stack",
        "the stack, and the slope along the whitened record",
        _OURS,
        access=QUERIES,
        cost="a minute, 8 queries a record",
    )
    yield learned(
        "suri",
        "gradients, neighbours and walks of the CIFAR-10 runner-up",
        "A. Suri, My submission to the MICO Challenge, 2023",
        access=WHITE_BOX,
        cost="minutes to hours",
    )


def _white_box() -> Iterator[Entry]:
    decoder = partial(
        Entry,
        source=_OURS,
        access=WHITE_BOX,
        leaves_one_out=False,
        all_records=True,
        least_shadows=4,
    )
    title = "how much of the record's own update is in an MLP's first layer"
    yield decoder("trace", title, cost="a minute", least_shadows=3)
    title = "traces of all records decoded jointly (MLPs), plus the logit's ratio"
    yield decoder("joint", title, cost="minutes")
    title = "the strongest: of MLPs a stack of signals, traces and decodes, of others `layers`"
    yield decoder("best", title, cost="minutes", known_training_set=True)
    title = "decodes of all layers of any model, stacked"
    yield decoder("layers", title, cost="minutes to an hour")


_ALIASES = {"lira": "lira-online", "whitebox": "best"}


def _entries() -> Iterator[Entry]:
    families = (_others(), _calibrations(), _likelihood_ratios(), _learned(), _white_box())
    found = {entry.name: entry for family in families for entry in family}
    yield from found.values()
    for name, other in _ALIASES.items():
        yield replace(found[other], name=name, alias_of=other)


ENTRIES: Mapping[str, Entry] = {entry.name: entry for entry in _entries()}


def check_name(name: str) -> Entry:
    """The entry of a name; ValueError with the nearest names if there is none.

    >>> check_name("lria")
    Traceback (most recent call last):
    ValueError: Unknown attack 'lria': did you mean lira? `mico attacks` lists all.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    near = nearest(name, ENTRIES)
    if near:
        raise ValueError(
            f"Unknown attack {name!r}: did you mean {' or '.join(near)}? `mico attacks` lists all."
        )
    raise ValueError(
        f"Unknown attack {name!r}: `mico attacks` lists all; one of your own is "
        "path/to/file.py:function."
    )
