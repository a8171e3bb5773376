"""Batches of sentences without needless padding: which models allow it, and what they give."""

import numpy as np
import pytest
import torch

from mico_competition.data.arrays import TokenDataset
from mico_competition.models.padding import (
    MASKS_PADDING,
    by_length,
    ends,
    masks_padding,
    trimmed,
)
from mico_competition.signals.forward import make_arrays
from mico_competition.signals.points import Points

PAD, LONGEST = 1, 20
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": LONGEST + 4,
    "pad_token_id": PAD,
    "num_labels": 3,
}


def model_of(kind):
    """A small random model of transformers of this type, in eval mode."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def sentences(count=30):
    """Tokens int64 [count, LONGEST] and their mask, of lengths in no order."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, LONGEST - 4, (count,), generator=generator)
    mask = (torch.arange(LONGEST) < lengths[:, None]).long()
    ids = torch.randint(2, 60, mask.shape, generator=generator)
    return {"input_ids": torch.where(mask > 0, ids, PAD), "attention_mask": mask}


def points_of(inputs):
    mask = inputs["attention_mask"].to(torch.uint8)
    data = TokenDataset(inputs["input_ids"].int(), mask, torch.arange(len(mask)) % 3)
    return Points("sst2", data, 7)


@pytest.mark.parametrize("kind", MASKS_PADDING)
def test_a_models_outputs_are_the_same_without_padding(kind):
    model, inputs = model_of(kind), sentences()
    assert masks_padding(model)
    with torch.no_grad():
        whole, short = model(**inputs).logits, model(**trimmed(inputs)).logits
    assert len(trimmed(inputs)["input_ids"][0]) < LONGEST
    assert torch.allclose(whole, short, atol=1e-5)


def test_signals_are_in_the_order_of_records_and_skip_padding():
    model, inputs = model_of("roberta"), sentences()
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    arrays = make_arrays(model, points_of(inputs), ["logits"], "model_0")
    with torch.no_grad():
        alone = [
            model(input_ids=ids[mask > 0][None], attention_mask=mask[mask > 0][None]).logits
            for ids, mask in zip(*inputs.values())
        ]
    np.testing.assert_allclose(np.concatenate(arrays["logits"]), torch.cat(alone), atol=1e-5)
    passed, tokens = sum(seen[:5]), int(inputs["attention_mask"].sum())
    assert tokens <= passed < 0.7 * inputs["input_ids"].numel()


def test_other_models_get_the_padding():
    """FNet mixes the tokens of all positions."""
    model, inputs = model_of("fnet"), sentences()
    assert not masks_padding(model)
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    points = points_of(inputs)
    points.outputs(model, lambda x, _: model(input_ids=x["input_ids"]).logits, 7)
    assert set(seen) == {LONGEST}


def test_padding_in_front_is_kept():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert ends(mask).tolist() == [4, 3, 1]
    assert by_length(mask).tolist() == [2, 1, 0]
    assert trimmed({"attention_mask": mask[1:]})["attention_mask"].shape == (2, 3)
    images = torch.zeros(2, 3)
    assert trimmed(images) is images


class OfOnesOwn(torch.nn.Module):
    """A module with the configuration of a model whose padding is masked, but a head of its own."""

    def __init__(self, body):
        super().__init__()
        self.body, self.config = body, body.config


def test_models_whose_use_of_the_outputs_is_not_known_keep_the_padding():
    model = model_of("bert")
    assert masks_padding(model) and not masks_padding(OfOnesOwn(model))
    model.config.chunk_size_feed_forward = 5  # other lengths are not multiples of it
    assert not masks_padding(model)


def test_gradients_flow_beside_kept_batches_of_the_same_size():
    model, points = model_of("roberta"), points_of(sentences())
    arrays = make_arrays(model, points, ["logits", "gradient_norm"], "model_0")
    again = make_arrays(model, points, ["gradient_norm"], "model_0")
    np.testing.assert_allclose(arrays["gradient_norm"], again["gradient_norm"], rtol=1e-5)
