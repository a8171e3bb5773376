"""Private steps of models of transformers, with and without LoRA, are those of a loop."""

import copy
import warnings

import pytest
import torch
from helpers_bookkeeping import gradients_by_loop, make
from helpers_precision import contributions, trainer_in

import mico_competition as mico
from mico_competition.training.dpsgd import clip_factors
from mico_competition.training.losses import LOSSES

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TOKENS, LENGTH, N = 40, 9, 30


def small(kind, attention):
    """A tiny model without dropout, and the name of its loss."""
    sizes = {
        "vocab_size": TOKENS,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    gpt2 = {
        **{"vocab_size": TOKENS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
        **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    }
    distil = {
        **{"vocab_size": TOKENS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
        **{"max_position_embeddings": 32, "pad_token_id": 1, "dropout": 0.0},
        **{"attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    }
    llama = {name: value for name, value in sizes.items() if "dropout" not in name}
    llama["num_key_value_heads"] = 1
    t = transformers
    made = {
        "BERT": (t.BertForSequenceClassification, t.BertConfig, sizes, "cross_entropy"),
        "BERT, masked tokens": (t.BertForMaskedLM, t.BertConfig, sizes, "tokens"),
        "RoBERTa": (t.RobertaForSequenceClassification, t.RobertaConfig, sizes, "cross_entropy"),
        "RoBERTa, masked tokens": (t.RobertaForMaskedLM, t.RobertaConfig, sizes, "tokens"),
        "DistilBERT": (
            t.DistilBertForSequenceClassification,
            t.DistilBertConfig,
            distil,
            "cross_entropy",
        ),
        "GPT-2": (t.GPT2LMHeadModel, t.GPT2Config, gpt2, "next_token"),
        "GPT-2, classes": (t.GPT2ForSequenceClassification, t.GPT2Config, gpt2, "cross_entropy"),
        "Llama": (t.LlamaForCausalLM, t.LlamaConfig, llama, "next_token"),
        "Llama, tied": (
            t.LlamaForCausalLM,
            t.LlamaConfig,
            {**llama, "tie_word_embeddings": True},
            "next_token",
        ),
    }
    model_class, config_class, arguments, loss = made[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**arguments, attn_implementation=attention))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train(), loss


KINDS = [
    "BERT",
    "BERT, masked tokens",
    "RoBERTa",
    "RoBERTa, masked tokens",
    "DistilBERT",
    "GPT-2",
    "GPT-2, classes",
    "Llama",
    "Llama, tied",
]


def sentences(loss):
    """Inputs with padding, and targets: classes, or tokens of which padding does not count."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, TOKENS, (N, LENGTH), generator=generator)
    lengths = torch.randint(4, LENGTH + 1, (N, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    ids = torch.where(mask.bool(), ids, 1)
    classes = torch.randint(2, (N,), generator=generator)
    targets = classes if loss == "cross_entropy" else torch.where(mask.bool(), ids, -100)
    return {"input_ids": ids, "attention_mask": mask}, targets


def rows(inputs, at):
    return {name: value[at] for name, value in inputs.items()}


def by_loop(model, inputs, targets, loss, norm):
    """The clipped sum of per-example gradients, in float64, and how many examples are clipped."""
    model = copy.deepcopy(model).double()
    trained = [p for p in model.parameters() if p.requires_grad]
    sums, clipped = [torch.zeros_like(p) for p in trained], 0
    for at in range(len(targets)):
        one = slice(at, at + 1)
        value = LOSSES[loss](model(**rows(inputs, one)), targets[one]).sum()
        gradients = torch.autograd.grad(value, trained)
        factor = clip_factors(torch.cat([g.flatten() for g in gradients]).norm(), norm)
        clipped += bool(factor < 1)
        sums = [total + factor * g for total, g in zip(sums, gradients)]
    return sums, clipped


def assert_step_is_the_loops(model, loss, norm):
    """One step over all checks, in physical batches of 4, with noise too small to see."""
    inputs, targets = sentences(loss)
    before = copy.deepcopy(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = mico.PrivateTrainer(
        model,
        torch.optim.SGD(trained, lr=1.0),
        noise_multiplier=1e-9,
        num_records=N,
        batch_size=10,
        epochs=1,
        max_grad_norm=norm,
        loss=loss,
        max_physical_batch_size=4,
        seed=2,
    )
    batch = next(iter(trainer.batches(1)))
    trainer.step(rows(inputs, batch), targets[batch])
    sums, clipped = by_loop(before, rows(inputs, batch), targets[batch], loss, norm)
    assert 0 < clipped <= len(batch)
    scale = torch.cat([s.flatten() for s in sums]).norm() / len(sums) ** 0.5
    names = dict(model.named_parameters())
    moved = [(b - names[name]) * 10 for name, b in before.named_parameters() if b.requires_grad]
    for found, expected in zip(moved, sums, strict=True):
        error = (found.detach() - expected).norm()
        assert error < 1e-3 * max(float(expected.norm()), float(scale))
    for name, parameter in before.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, names[name])
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_models(kind, attention):
    assert_step_is_the_loops(*small(kind, attention), norm=0.5)


LORA = {
    "BERT": ("SEQ_CLS", ["query", "value"]),
    "RoBERTa": ("SEQ_CLS", ["query", "value"]),
    "GPT-2": ("CAUSAL_LM", ["c_attn"]),
    "GPT-2, classes": ("SEQ_CLS", ["c_attn", "c_proj"]),
    "Llama": ("CAUSAL_LM", ["q_proj", "v_proj"]),
}


def adapters(model, settings):
    """`model` with LoRA."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    with warnings.catch_warnings():
        # peft corrects fan_in_fan_out for Conv1D, and asks transformers by a deprecated name.
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, settings)


def with_adapters(kind, attention="sdpa"):
    """A model of which only LoRA adapters, and the head of a classifier, are trained."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, loss = small(kind, attention)
    task, modules = LORA[kind]
    settings = peft.LoraConfig(
        task_type=task, r=3, lora_alpha=6, lora_dropout=0.0, target_modules=modules
    )
    adapted = adapters(model, settings)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # zero at first, so that lora_A would have no gradient
                parameter.normal_(std=0.3)
    return adapted, loss


@pytest.mark.slow
@pytest.mark.parametrize("kind", LORA)
def test_adapters(kind):
    model, loss = with_adapters(kind)
    trainer = assert_step_is_the_loops(model, loss, norm=0.5)
    assert all("formula" in how for how in trainer.layers().values())
    assert any("lora_A" in name for name in trainer.layers())


@pytest.mark.slow
def test_a_private_fine_tuning_with_adapters_from_start_to_certificate():
    """LoRA with dropout learns which token a sentence holds, within epsilon 8."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch.manual_seed(0)
    count = 400
    ids = torch.randint(5, TOKENS, (count, LENGTH))
    targets = torch.arange(count) % 2
    ids[:, 0] = 3 + targets
    base = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=TOKENS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=16,
        )
    )
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    model = adapters(base, settings).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = mico.PrivateTrainer(
        model,
        torch.optim.AdamW(trained, lr=0.05),
        target_epsilon=8,
        target_delta=1e-4,
        num_records=count,
        batch_size=100,
        epochs=15,
        max_grad_norm=0.5,
        seed=0,
    )
    for batch in trainer.batches():
        trainer.step({"input_ids": ids[batch]}, targets[batch])
    model.eval()
    with torch.no_grad():
        accuracy = (model(input_ids=ids).logits.argmax(1) == targets).double().mean()
    assert accuracy > 0.9
    told = trainer.certificate()
    assert 7.5 < told["epsilon"] <= 8
    assert told["trained_parameters"] < told["frozen_parameters"] / 2


def test_roberta_uses_fused_attention_and_its_gradients_are_those_of_plain_attention(
    tmp_path, monkeypatch
):
    """The task's own model, against a loop in float64 with attention as a product of matrices."""
    model, inputs, labels = make("roberta, long", tmp_path)
    assert model.config._attn_implementation == "sdpa"
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []

    def seen(*args, **named):
        calls.append(args)
        return fused(*args, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    trainer = trainer_in("float32", model, norm=1e9)
    model.eval()  # no dropout
    parts, _ = contributions(trainer, inputs, labels, monkeypatch)
    assert len(calls) >= model.config.num_hidden_layers
    plain = copy.deepcopy(model).eval()
    plain.set_attn_implementation("eager")
    calls.clear()
    loop = gradients_by_loop(plain, inputs, labels)
    assert not calls
    for part, gradient in zip(parts, loop, strict=True):
        whole = torch.cat([each.flatten() for each in gradient])
        assert float((part - whole).norm()) <= 1e-5 * float(whole.norm())
