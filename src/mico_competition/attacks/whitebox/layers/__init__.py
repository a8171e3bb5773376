"""White-box decoding of any model's layers: convolutions, transformers, embeddings, heads.

Beside `whitebox`, which is faster and knows MLPs only.
"""

from mico_competition.attacks.whitebox.layers.attack import ATTACKS, best_layers
from mico_competition.attacks.whitebox.layers.frame import supports

__all__ = ["ATTACKS", "best_layers", "supports"]
