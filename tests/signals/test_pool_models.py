"""Pools of models that are run: torch modules, text models and scikit-learn classifiers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from mico_competition.signals.pool import ModelPool

RECORDS, FEATURES, CLASSES = 60, 6, 3


class Named(nn.Module):
    """Takes two tensors by name, and returns an object with logits."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, left, right):
        return type("Output", (), {"logits": self.linear(left * right)})()


def bed(build=lambda: nn.Linear(FEATURES, CLASSES), models=4):
    torch.manual_seed(0)
    x, y = torch.randn(RECORDS, FEATURES), torch.arange(RECORDS) % CLASSES
    membership = torch.rand(models, RECORDS) < 0.5
    return [build() for _ in range(models)], x, y, membership


def test_a_pool_of_modules_has_the_signals_of_their_logits():
    models, x, y, membership = bed()
    with torch.no_grad():
        logits = torch.stack([model(x) for model in models])
    expected = ModelPool.from_logits(logits, y, membership)
    pools = [
        ModelPool.from_models(models, x, y, membership),
        ModelPool.from_models(models, x.numpy().astype(float), y.numpy(), membership.numpy()),
        ModelPool.from_models([lambda m=m: m for m in models], x, y, membership, batch_size=7),
    ]
    for pool in pools:
        for name in ("loss", "logit", "entropy"):
            np.testing.assert_allclose(
                pool.signal(name), expected.signal(name), rtol=1e-5, atol=1e-6
            )
        np.testing.assert_allclose(pool.source.logits(2), logits[2], rtol=1e-5, atol=1e-6)
    assert repr(pools[0]).endswith("holds models)")


def test_the_gradient_norm_of_a_linear_model_by_hand():
    models, x, y, membership = bed()
    found = ModelPool.from_models(models, x, y, membership).signal("log_gradient_norm")
    with torch.no_grad():
        residual = torch.softmax(models[1](x), 1) - nn.functional.one_hot(y)
    norm = residual.norm(dim=1) * (x.square().sum(1) + 1).sqrt()
    np.testing.assert_allclose(found[1], norm.log(), atol=1e-4)


def test_a_class_is_no_model():
    _, x, y, membership = bed()
    with pytest.raises(ValueError, match="got the class Linear: pass trained models"):
        ModelPool.from_models([nn.Linear] * 4, x, y, membership)


def test_models_stay_as_they_are():
    models, x, y, membership = bed(lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.9)))
    models[1].eval()
    models[2][0].weight.requires_grad_(False)
    before = [model[0].weight.clone() for model in models]
    pool = ModelPool.from_models(models, x, y, membership)
    pool.signal("log_gradient_norm")
    again = ModelPool.from_models(models, x, y, membership)
    assert np.array_equal(pool.signal("logit"), again.signal("logit"))  # without dropout
    assert [model.training for model in models] == [True, False, True, True]
    assert [part.training for part in models[0]] == [True, True]
    assert not models[2][0].weight.requires_grad and models[0][0].weight.requires_grad
    assert all(torch.equal(m[0].weight, w) for m, w in zip(models, before))
    assert not any(part._forward_hooks for model in models for part in model)


def test_inputs_by_name_and_a_nested_output():
    models, x, y, membership = bed(Named)
    named = {"left": x.numpy(), "right": x}
    pool = ModelPool.from_models(models, named, y, membership, batch_size=8)
    with torch.no_grad():
        logits = torch.stack([model.linear(x * x) for model in models])
    np.testing.assert_allclose(
        pool.signal("logit"), ModelPool.from_logits(logits, y, membership).signal("logit"), 1e-4
    )
    some = pool.select(records=[5, 2], models=[1])
    assert np.array_equal(some.signal("logit"), pool.signal("logit")[1:2, [5, 2]])
    assert torch.equal(some.source.data.inputs([0])["left"].cpu(), x[5:6])
    assert len(some.source.data) == 2


def test_a_cache_on_disk(tmp_path, monkeypatch):
    models, x, y, membership = bed()
    first = ModelPool.from_models(models, x, y, membership, cache=tmp_path)
    entropy = first.signal("entropy")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4 * 3

    def refuse(*args, **kwargs):
        raise AssertionError("the cache holds this")

    with monkeypatch.context() as patched:
        patched.setattr("mico_competition.signals.pool_models.make_arrays", refuse)
        again = ModelPool.from_models(models, x, y, membership, cache=tmp_path)
        assert np.array_equal(again.signal("logit"), first.signal("logit"))
        assert np.array_equal(again.signal("entropy"), entropy)
        assert np.array_equal(again.source.logits(0), first.source.logits(0))
    with torch.no_grad():
        models[0].weight += 1
    changed = ModelPool.from_models(models, x, y, membership, cache=tmp_path)
    assert not np.array_equal(changed.signal("logit")[0], first.signal("logit")[0])
    moved = ModelPool.from_models(models, x + 1, y, membership, cache=tmp_path)
    assert not np.array_equal(moved.signal("logit")[1], first.signal("logit")[1])


def test_weights_that_change_later_are_refused():
    models, x, y, membership = bed()
    pool = ModelPool.from_models(models, x, y, membership)
    with torch.no_grad():
        models[1].weight += 1
    with pytest.raises(ValueError, match="weights of model 1 changed since its pool was made"):
        pool.source.load(1)
    assert isinstance(pool.source.load(0), nn.Linear)


MISTAKES = {
    "one model": (lambda m, x, y, k: (m[0], x, y, k), r"got one Linear: pass \[model\]"),
    "nothing": (lambda m, x, y, k: ([], x, y, k), "empty list"),
    "no model": (lambda m, x, y, k: ([m[0], 3], x, y, k[:2]), "got int as model 1"),
    "no records": (lambda m, x, y, k: (m, x[:9], y, k), "inputs and labels of .* 9 and 60"),
    "a dataset": (
        lambda m, x, y, k: (m, torch.utils.data.TensorDataset(x, y), y, k),
        "dataset TensorDataset: stack its records",
    ),
    "other features": (
        lambda m, x, y, k: (m, x[:, :4], y, k),
        r"model 0 does not take the inputs, here inputs float32 \(16, 4\)",
    ),
    "whole numbers": (
        lambda m, x, y, k: (m, x.int(), y, k),
        r"inputs int32 \(16, 6\): .* pass inputs.float\(\)",
    ),
    "layers": (lambda m, x, y, k: (nn.Sequential(*m), x, y, k), "got one Sequential"),
    "labels": (lambda m, x, y, k: (m, x, y + 1, k), r"labels in 0..2.* got 3"),
    "twins": (lambda m, x, y, k: ([*m[:3], m[0]], x, y, k), "Models 0 and 3 have the same"),
    "softmax": (
        lambda m, x, y, k: ([nn.Sequential(one, nn.Softmax(1)) for one in m], x, y, k),
        "model 0 returns probabilities .* take its softmax off",
    ),
    "one output": (
        lambda m, x, y, k: ([nn.Linear(6, 1) for _ in m], x, y, k),
        r"model 0 to return logits .* got \(16, 1\)",
    ),
    "other classes": (
        lambda m, x, y, k: ([*m[:3], nn.Linear(6, 5)], x, y, k),
        "model 3 has 5 and the first model 3",
    ),
    "batch": (lambda m, x, y, k: (m, x, y, k, {"batch_size": 0}), "batch_size=0 >= 1"),
    "mask": (lambda m, x, y, k: (m, x, y, k.T), r"pass membership\.T"),
    "function": (
        lambda m, x, y, k: ([lambda: 3] * 4, x, y, k),
        "model 0 to be a torch module.* got int",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_sentence(mistake):
    change, sentence = MISTAKES[mistake]
    models, inputs, labels, membership, *rest = change(*bed())
    with pytest.raises(ValueError, match=sentence):
        ModelPool.from_models(models, inputs, labels, membership, **(rest[0] if rest else {}))


def test_a_model_with_nan_is_named():
    models, x, y, membership = bed()
    with torch.no_grad():
        models[2].weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite logits of model 2"):
        ModelPool.from_models(models, x, y, membership)


def test_classifiers_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    _, x, y, membership = bed(models=5)
    x, membership = x.numpy(), membership.numpy()
    names = np.array(["cat", "dog", "eel"])[y.numpy()]
    membership[3] &= names != "eel"  # the model has not seen an eel
    models = [LogisticRegression().fit(x[mask], names[mask]) for mask in membership]
    pool = ModelPool.from_models(models, x, names, membership)
    whole = models[0].predict_proba(x)
    assert pool.labels.tolist() == y.tolist()
    np.testing.assert_allclose(pool.signal("confidence")[0], whole[np.arange(RECORDS), y])
    eel, seen = pool.signal("confidence")[3], models[3].predict_proba(x)
    assert (eel[names == "eel"] < 1e-2).all() and np.isfinite(pool.signal("logit")).all()
    np.testing.assert_allclose(eel[names == "cat"], seen[names == "cat", 0])
    assert "holds probabilities" in repr(pool)
    some = pool.select(records=names == "dog")
    assert np.array_equal(some.signal("logit"), pool.signal("logit")[:, names == "dog"])
    with pytest.raises(ValueError, match="got 'fox'"):
        ModelPool.from_models(models, x, np.where(names == "dog", "fox", names), membership)
    with pytest.raises(ValueError, match="Expected fitted classifiers"):
        ModelPool.from_models([LogisticRegression()] * 5, x, names, membership)


@pytest.mark.slow
def test_a_text_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=2,
    )
    torch.manual_seed(0)
    models = [transformers.BertForSequenceClassification(config) for _ in range(3)]
    ids = torch.randint(1, 50, (20, 8))
    mask = torch.ones_like(ids)
    mask[:7, 5:] = 0
    tokens = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    membership = torch.rand(3, 20) < 0.5
    pool = ModelPool.from_models(models, tokens, torch.arange(20) % 2, membership, batch_size=6)
    with torch.no_grad():
        logits = torch.stack([model.eval()(**tokens).logits for model in models])
    expected = ModelPool.from_logits(logits, torch.arange(20) % 2, membership)
    np.testing.assert_allclose(pool.signal("logit"), expected.signal("logit"), atol=1e-4)
    assert type(pool.source.data).__name__ == "TokenDataset"


class RaisesKeyError(nn.Module):
    def forward(self, inputs):
        return {}["absent"]


def test_errors_of_a_forward_pass_and_mixed_kinds_name_the_model():
    inputs, labels, mask = np.zeros((4, 2), np.float32), [0, 1, 0, 1], np.eye(2, 4, dtype=bool)
    with pytest.raises(ValueError, match="model 0 does not take the inputs.*KeyError: 'absent'"):
        ModelPool.from_models([RaisesKeyError()] * 2, inputs, labels, mask)
    fitted = LogisticRegression().fit(np.arange(8).reshape(4, 2), labels)
    with pytest.raises(ValueError, match="got Linear as model 1: make a pool of each kind"):
        ModelPool.from_models([fitted, nn.Linear(2, 2)], inputs, labels, mask)
