"""Batches of sentences without needless padding.

Datasets hold every sentence at the length of the longest that a model takes (67 tokens for SST-2,
whose sentences have 13 on average).  Sentences that go through a model in the order of their
lengths, and each batch without the positions that are padding in all of it, take a fraction of the
time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Types of models (`config.model_type`) whose outputs depend on no padding, as the tests check.
# Others may: FNet mixes all positions, ConvBERT's convolutions reach over the end of a sentence.
MASKS_PADDING = ("roberta", "xlm-roberta", "camembert", "bert", "distilbert", "electra", "albert")


def masks_padding(model: nn.Module) -> bool:
    """Whether a model gives the same, up to rounding, without the padding behind its sentences.

    Only transformers' own models count: what others do with their outputs is not known.
    """
    inner = getattr(model, "_module", model)
    config = getattr(inner, "config", None)
    return (
        type(inner).__module__.startswith("transformers.models.")
        and getattr(config, "model_type", None) in MASKS_PADDING
        and not getattr(config, "chunk_size_feed_forward", 0)  # it refuses other lengths
    )


def ends(mask: Tensor) -> Tensor:
    """int64[B], the position behind the last token of each sentence; 1 if it has none.

    Args:
        mask: [B, L], above 0 for a token and 0 for padding, which may stand on either side.
    """
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return ((mask > 0) * places).amax(1).clamp_min(1)


def trimmed(inputs: Any) -> Any:
    """Inputs [B, L] of a text model without the last positions that are padding in all of them.

    A tensor, such as images, is returned as it is.
    """
    if not isinstance(inputs, Mapping) or "attention_mask" not in inputs:
        return inputs
    return cut(inputs, int(ends(inputs["attention_mask"]).max()))


def cut(inputs: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The first `length` positions of inputs [B, L]."""
    return {name: own[:, :length] for name, own in inputs.items()}


def by_length(mask: Tensor) -> Tensor:
    """int64[N], sentences in the order of `ends`, and as they come where these are equal."""
    return ends(mask).argsort(stable=True)
