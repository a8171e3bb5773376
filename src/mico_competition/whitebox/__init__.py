"""White-box attacks on models of the MLP family: what training left in the weights."""

from mico_competition.evaluation.problem import Attack
from mico_competition.whitebox.pipeline import best, best_distinguisher, joint_decoder, trace

_OURS = "ours; the matched filter and linear multi-user detector of communications"

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "trace",
        "how much of the record's own update direction is in the first layer",
        _OURS,
        trace,
        leaves_one_out=False,
        white_box=True,
        least_shadows=3,
    ),
    Attack(
        "joint",
        "traces of all records decoded jointly, plus the logit's ratio",
        _OURS,
        joint_decoder,
        leaves_one_out=False,
        white_box=True,
        least_shadows=4,
    ),
    Attack(
        "best",
        "stack of signals, traces and joint decodes; uses what is told of the targets",
        _OURS,
        best,
        leaves_one_out=False,
        white_box=True,
        least_shadows=4,
    ),
)

__all__ = ["ATTACKS", "best", "best_distinguisher", "joint_decoder", "trace"]
