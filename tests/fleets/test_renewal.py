"""A model that was wrong is trained anew with new seeds, and everything accepts the new one."""

import json
import os
import shutil
import stat

import pytest

from mico_competition.cli import main
from mico_competition.competition.challenge import read_seeds
from mico_competition.fleets import renewal
from mico_competition.fleets.finished import damage
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.renewal import renew

SCENARIO = "digits_inf"
SMALL = ["--threads", "1", "--workers", "1", "--num_epochs", "1"]


def fleet(out, models="0,1,100"):
    return main(["fleet", SCENARIO, "--models", models, "--out", str(out), *SMALL])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished fleet of three models; read-only."""
    out = tmp_path_factory.mktemp("renewal")
    assert fleet(out) == 0
    return out


@pytest.fixture
def out(done, tmp_path):
    """A copy of it, with all times."""
    return shutil.copytree(done, tmp_path / "out")


def model_1(out):
    return out / "digits" / SCENARIO / "train" / "model_1"


def seeds(out):
    return {entry.model_id: entry.seeds for entry in Ledger.read(out, SCENARIO).entries}


def test_a_model_gets_new_seeds_and_the_next_run_trains_it(out, capsys):
    before, old = seeds(out), read_seeds(model_1(out))
    assert main(["fleet", SCENARIO, "--new_seeds", "1", "--out", str(out)]) == 0
    kept = out / "fleet" / SCENARIO / "replaced" / "model_1"
    printed = capsys.readouterr().out
    assert f"what was model_1 is {kept} now" in printed and "amend" not in printed
    assert all(secret not in printed for secret in (kept / "solution.csv").read_text().split())
    assert read_seeds(kept) == old and not model_1(out).exists()
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert fleet(out) == 0
    after = seeds(out)
    assert {i for i in after if after[i] != before[i]} == {1}
    assert read_seeds(model_1(out)) == after[1]
    assert main(["fleet", "status", str(out), "--verify"]) == 0
    assert damage(Ledger.read(out, SCENARIO), verify=True) == {}


@pytest.mark.slow
def test_a_second_renewal_keeps_both_of_the_old_models(out):
    for number in ("", "-2"):
        moved = renew(out, SCENARIO, [1])
        assert moved == {1: out / "fleet" / SCENARIO / "replaced" / f"model_1{number}"}
        assert fleet(out) == 0


def test_a_model_that_is_not_finished_gets_new_seeds_too(out):
    shutil.rmtree(model_1(out))
    before = seeds(out)
    assert renew(out, SCENARIO, [1]) == {1: None}
    assert seeds(out)[1] != before[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["forget_files", "append_line", "os.rename"])
def test_a_renewal_that_was_killed_is_completed_by_the_same_call(out, monkeypatch, step):
    owner, name = (os, "rename") if step == "os.rename" else (renewal, step)
    whole = getattr(owner, name)

    def killed(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            renew(out, SCENARIO, [1])
    before = seeds(out)
    renew(out, SCENARIO, [1])
    assert seeds(out)[1] != before[1]
    assert fleet(out) == 0 and damage(Ledger.read(out, SCENARIO), verify=True) == {}


@pytest.mark.parametrize("step", ["forget_files", "append_line", "write", "os.rename"])
def test_after_a_renewal_that_was_killed_no_model_is_trained_with_its_old_seeds(
    out, monkeypatch, capsys, step
):
    owner = {"os.rename": os, "write": Ledger}.get(step, renewal)
    name = step.rpartition(".")[2]
    whole, old = getattr(owner, name), read_seeds(model_1(out))

    def killed(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            renew(out, SCENARIO, [1])
    if step == "os.rename":
        assert fleet(out) == 0 and read_seeds(model_1(out)) != old
    else:
        folder, begun = model_1(out).stat().st_ino, step != "append_line"
        assert main(["fleet", "status", str(out), "--verify"]) == begun
        assert fleet(out) == begun and model_1(out).stat().st_ino == folder
        assert ("give that command again" in capsys.readouterr().err) == (step == "write")


def test_a_new_model_whose_line_was_not_written_yet_is_not_damaged(out):
    """As after a kill between the model's folder and its line."""
    renew(out, SCENARIO, [1])
    assert fleet(out) == 0
    files = out / "fleet" / SCENARIO / "files.jsonl"
    lines = files.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["model_id"] == 1
    events = out / "fleet" / SCENARIO / "events.jsonl"
    killed = [e for e in events.read_text().splitlines() if '"end"' not in e]
    files.write_text("".join(lines[:-1]))
    events.write_text("\n".join(killed[:-1]) + "\n")  # without the last "done"
    assert damage(Ledger.read(out, SCENARIO), verify=True) == {}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--new_seeds 7 --out {}", "has no model_7: `mico fleet digits_inf --models 7"),
        ("--new_seeds 1 --out {}/other", "There is no fleet of digits_inf in"),
        ("--new_seeds 1", "Give --out, the folder of the fleet."),
        ("--new_seeds 1 --out {} --models 1", "leave --models out"),
        ("--new_seeds 1 --out {} --num_epochs 3", "leave --num_epochs out"),
        ("--new_seeds 1 --out {} --dry_run", "leave --dry_run out"),
    ],
)
def test_mistakes_get_a_sentence(done, capsys, flags, sentence):
    before = seeds(done)
    assert main(["fleet", SCENARIO, *flags.format(done).split()]) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert seeds(done) == before


@pytest.mark.slow
def test_a_released_model_is_replaced_by_a_new_one(out, tmp_path, capsys):
    released = tmp_path / "released"
    assert main(["release", str(out), "--to", str(out / "released")]) == 1
    assert "which is secret: choose a folder outside for --to." in capsys.readouterr().err
    assert main(["release", str(out), "--to", str(released)]) == 0
    lacking = (
        "digits_inf lacks models that its challenge has: train 2-99, dev 101-149, final 150-199"
    )
    assert lacking in capsys.readouterr().out
    assert main(["fleet", SCENARIO, "--new_seeds", "100", "--out", str(out)]) == 0
    assert "--amend REASON" in capsys.readouterr().out
    assert fleet(out) == 0
    amend = ["release", str(out), "--to", str(released), "--amend", "It had other records."]
    assert main(amend) == 0
    assert main(["verify", str(released / "digits")]) == 0
    assert main(["leaks", str(released), "--trained", str(out)]) == 0
    assert main(["fleet", "status", str(out)]) == 0
    assert main(["release", str(out), "--to", str(tmp_path / "anew")]) == 0
