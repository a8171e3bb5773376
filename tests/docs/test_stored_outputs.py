"""What pages and notebooks show of a run has the form that today's code gives it."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_pages import PAGES, ROOT, skeleton
from torch import nn

import mico_competition as mico
from mico_competition.cli import main
from mico_competition.evaluation.results_table import HEADS

FINE_TUNING = "docs/tutorials/private-fine-tuning.ipynb"
COMPETITION = "docs/tutorials/run-a-competition.ipynb"
AUDIT = "starting-kit/private-training.ipynb"


def stored(name):
    """The texts of each cell's output in a notebook, as one."""
    cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    lines = [o.get("text") or o.get("data", {}).get("text/plain") or [] for o in outputs]
    return ["".join(text).replace("\r", "") for text in lines]


@pytest.fixture(scope="module")
def trainer():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    inputs, labels = torch.randn(40, 4), torch.arange(40) % 2
    trainer = mico.PrivateTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        target_delta=1e-5,
        num_records=40,
        batch_size=20,
        epochs=1,
        max_grad_norm=1.0,
        seed=0,
    )
    for batch in trainer.batches():
        trainer.step(inputs[batch], labels[batch])
    return trainer


def test_a_stored_certificate_has_todays_fields_and_words(trainer):
    (text,) = [text for text in stored(FINE_TUNING) if text.startswith("{'claim'")]
    shown, today = ast.literal_eval(text), trainer.certificate()
    assert set(today) - set(shown) == {"weights_sha256", "versions"}
    assert list(shown) == [name for name in today if name in shown]
    for name, value in shown.items():
        assert type(value) is type(today[name]), name
        if isinstance(value, str):
            assert skeleton(value) == skeleton(today[name])


def test_a_stored_trainer_is_shown_as_today(trainer):
    texts = [*stored(FINE_TUNING), (ROOT / "docs/howto/private-models.md").read_text("utf-8")]
    shown = re.findall(r"^PrivateTrainer\(.*\)$", "\n".join(texts), re.MULTILINE)
    assert len(shown) == 2
    for line in shown:
        assert skeleton(re.sub(r"\(\w+,", "(Linear,", line)) == skeleton(repr(trainer))


def test_stored_tables_of_results_have_todays_heads():
    heads = [skeleton(" ".join(["attack", *HEADS.values(), *more])) for more in ([], ["seconds"])]
    texts = [page.read_text(encoding="utf-8") for page in PAGES if page.suffix == ".md"]
    texts += ["\n".join(stored(p.relative_to(ROOT))) for p in PAGES if p.suffix == ".ipynb"]
    shown = re.findall(r"^attack .*TPR@.*$", "\n".join(texts), re.MULTILINE)
    assert len(shown) >= 4
    assert {skeleton(line) for line in shown} <= set(heads)


def test_stored_bounds_and_verdicts_have_todays_words():
    truth, scores = np.arange(200) % 2, np.arange(200) % 2 + np.linspace(0, 1, 200)
    bounds = mico.epsilon_bounds(truth, scores, delta=1e-5).sentence()

    def verdict(factor, claim):
        def train(include, seed):
            return factor * include + np.random.default_rng(seed).random(len(include))

        return mico.audit_trainer(train, canaries=100, epsilon=claim, seed=0).sentence()

    lines = "".join(stored(AUDIT)).splitlines()
    shown = [line for line in lines if "epsilon >=" in line]
    today = {skeleton(f"{words}: {bounds}") for words in ("without privacy", "epsilon 4")}
    today |= {skeleton(verdict(0, 4)), skeleton(verdict(9, 1))}
    assert len(shown) == len(today) == 4
    assert {skeleton(line) for line in shown} == today


def test_stored_output_of_commands_is_todays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    texts = stored(COMPETITION)
    assert main(["init", "mine"]) == 0
    assert capsys.readouterr().out == texts[0]
    file = Path("mine/competition.toml")  # with fewer models, as in the tutorial
    text = file.read_text(encoding="utf-8")
    for old, new in {"[0, 19]": "[0, 11]", "[20, 29]": "[12, 17]", "[30, 39]": "[18, 23]"}.items():
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
    assert main(["--competition", "mine/competition.toml", "tracks"]) == 0
    assert capsys.readouterr().out == texts[2]
