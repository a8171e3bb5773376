"""White-box attacks on models of the MLP family: what training left in the weights."""

from mico_competition.attacks.problem import Attack
from mico_competition.attacks.whitebox.mlp.pipeline import (
    best,
    best_distinguisher,
    joint_decoder,
    trace,
)

ATTACKS: tuple[Attack, ...] = (
    Attack.named("trace", trace),
    Attack.named("joint", joint_decoder),
    Attack.named("best", best),
)

__all__ = ["ATTACKS", "best", "best_distinguisher", "joint_decoder", "trace"]
