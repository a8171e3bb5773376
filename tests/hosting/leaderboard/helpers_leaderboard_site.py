"""Entries of a made-up leaderboard, some of them hostile."""

import copy

from helpers_leaderboard import made_up

from mico_competition.hosting.leaderboard.form import parse_time

OPENS = parse_time("2027-01-13T12:00:00Z")
BEFORE, AFTER = parse_time("2027-01-13T11:59:59Z"), parse_time("2027-01-13T12:00:00Z")
HOSTILE = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=2>',
    "'onmouseover=window.pwned=3 x='",
    "</style></title><svg/onload=window.pwned=4>",
    "{{ 7 * 7 }}{% raw %}",
)


# Averages of phase dev, and with them names; scenario _lo turns the order round.
DEV = {"Alpha": 0.30, "beta": 0.25, "Gamma": 0.24, "delta 10": 0.16, "delta 9": 0.15}


def entry(name, score, **fields):
    """A made-up entry whose scenarios differ: _hi is the average, _inf above it, _lo against it."""
    values = copy.deepcopy(made_up(name, score, half=0.01, **fields))
    if fields.get("challenge", "cifar10") == "cifar10":
        for scenario, shift in (("cifar10_inf", score / 4), ("cifar10_lo", -score / 4)):
            result = copy.deepcopy(values["scenarios"]["cifar10_hi"])
            result["scores"]["TPR_FPR_1000"] = round(score + shift, 4)
            values["scenarios"][scenario] = result
    return values


def page_of(site, challenge, start):
    return next(iter(sorted((site / challenge).glob(f"{start}*.html"), reverse=True)))
