"""`mico evaluate` and `mico audit` on arrays of one's own, in a file of `numpy.savez`."""

import json
from pathlib import Path

import numpy as np
import pytest

import mico_competition as mico
from mico_competition.cli import main


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """The outputs of eight models, of which members have larger logits."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    membership = rng.random((8, 60)) < 0.5
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(size=(8, 60, 3)) + 2 * membership[..., None] * np.eye(3)[labels]
    return {"logits": logits, "labels": labels, "membership": membership}


def run(capsys, *words):
    code = main([*words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_attacks_are_measured_as_in_python(arrays, capsys):
    np.savez("a.npz", **arrays)
    words = ["--attack", "lira", "--against", "loss", "--resamples", "20", "--seed", "3"]
    code, out, _ = run(capsys, "evaluate", "a.npz", *words, "--json", "a.json", "--csv", "a.csv")
    pool = mico.ModelPool.from_logits(**arrays)
    result = mico.evaluate(pool, ["lira"], against="loss", resamples=20, seed=3)
    assert code == 0 and "lira" in out and "loss" in out
    (found,) = json.loads(Path("a.json").read_text())["scenarios"]
    by_name = {one["name"]: one["metrics"]["TPR_FPR_1000"] for one in found["attacks"]}
    assert list(by_name) == list(result) and found["against"] == "loss"
    assert by_name["lira"]["value"] == result["lira"].tpr(0.1).value
    assert "lira" in Path("a.csv").read_text()


def test_the_report_is_alone_and_the_flag_takes_no_arrays_for_its_file(arrays, capsys):
    losses = np.random.default_rng(1).exponential(size=(8, 60))
    np.savez("l.npz", losses=losses, membership=arrays["membership"])
    before = Path("l.npz").read_bytes()
    code, out, _ = run(capsys, "evaluate", "--json", "l.npz", "--attack", "loss")
    (found,) = json.loads(out)["scenarios"]
    assert code == 0 and [one["name"] for one in found["attacks"]] == ["loss"]
    assert Path("l.npz").read_bytes() == before


def test_scores_are_audited(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    is_member = rng.random(1000) < 0.5
    scores = 3 * is_member + rng.normal(size=1000)
    np.savez("s.npz", scores=scores, is_member=is_member)
    bounds = mico.epsilon_bounds(is_member, scores, delta=1e-6)
    code, out, _ = run(capsys, "audit", "s.npz", "--delta", "1e-6")
    assert code == 0 and out.startswith(bounds.sentence())
    found = json.loads(run(capsys, "audit", "s.npz", "--delta", "1e-6", "--json")[1])
    assert (found["report"], found["epsilon"]) == ("audit of scores", bounds.headline.epsilon)
    assert [one["method"] for one in found["bounds"]] == [one.method for one in bounds]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            "evaluate none.npz",
            1,
            "There is no file none.npz: write one with numpy.savez('none",
        ),
        ("evaluate text.npz", 1, "Expected text.npz to be a file of numpy.savez with logits (or"),
        ("evaluate objects.npz", 1, "Expected objects.npz to be a file of numpy.savez"),
        ("evaluate both.npz", 1, "Expected one of logits, probabilities, losses in both.npz: it"),
        ("evaluate part.npz", 1, "There is no array membership in part.npz, only logits, labels"),
        ("evaluate turned.npz", 1, "membership"),
        ("evaluate a.npz --attack whitebox", 1, "whitebox"),
        ("evaluate a.npz --scenario digits_lo", 2, "--scenario is for a challenge folder"),
        ("evaluate a.npz --phase dev", 2, "--phase is for a challenge folder"),
        ("audit a.npz", 1, "There is no array scores in a.npz, only logits, labels, membership"),
        ("audit a.npz --attack lira", 2, "--attack is for a challenge folder"),
    ],
)
def test_mistakes_are_sentences(arrays, capsys, words, code, message):
    np.savez("a.npz", **arrays)
    np.savez("both.npz", losses=[1.0], **arrays)
    np.savez("part.npz", logits=arrays["logits"], labels=arrays["labels"])
    np.savez("turned.npz", **{**arrays, "membership": arrays["membership"].T})
    np.savez("objects.npz", logits=np.array([{}], dtype=object))
    Path("text.npz").write_text("no arrays")
    found, out, err = run(capsys, *words.split())
    assert (found, out) == (code, "") and message in err
    assert err.startswith("mico: ") and err.count("\n") == 1
