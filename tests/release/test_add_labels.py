"""When a phase is over, its labels are added to the release and verified."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from helpers_release import CHALLENGE, DEV, files_below

from mico_competition.cli import main
from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.release.add_labels import add_labels
from mico_competition.release.check_files import check_files
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.reveal import as_text, reveal

FINAL = DEV.replace("dev/model_100", "final/model_150")
LABELS = ("seed_membership", "seed_training", "solution.csv")


def states(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
    }


def test_labels_are_added_and_nothing_else_changes(copy, original):
    trained, out = copy
    before = files_below(out)
    assert add_labels(trained, CHALLENGE, out, "dev") == 3
    after = files_below(out)
    side = f"{CHALLENGE}.release"
    new = {
        f"{CHALLENGE}/{s}/dev/model_100/{n}"
        for s in ("digits_hi", "digits_inf", "digits_lo")
        for n in LABELS
    }
    assert after.keys() - before.keys() == {*new, f"{side}/revealed_dev.json"}
    changed = {name for name in before if before[name] != after[name]}
    zips = {f"{side}/archives/digits_{s}_dev.zip" for s in ("hi", "inf", "lo")}
    sums = {f"{side}/SHA256SUMS", f"{side}/archives/SHA256SUMS", f"{side}/release.json"}
    assert changed == zips | sums
    for name in LABELS:
        source = trained / CHALLENGE / DEV / name
        assert after[f"{CHALLENGE}/{DEV}/{name}"] == source.read_bytes()
    assert {time for time, _ in states(out / CHALLENGE).values()} == {315532800 * 10**9}
    assert {mode & 0o777 for _, mode in states(out).values()} == {0o644, 0o755}
    finished = subprocess.run(
        ["sha256sum", "-c", "--quiet", "--strict", f"{side}/SHA256SUMS"], cwd=out, check=True
    )
    assert finished.returncode == 0
    assert sorted(path.name for path in out.iterdir()) == [CHALLENGE, side]
    points = ChallengeDataset.from_path(out / CHALLENGE / DEV, range(1797))
    assert len(points.member) == 100  # a model of dev is now as one of train


@pytest.mark.slow
def test_every_check_knows_what_was_revealed(copy, capsys):
    trained, out = copy
    folder, withheld = str(out / CHALLENGE), "for dev and final it is withheld"
    assert main(["publish", folder, "team/x", "--dry_run"]) == 0
    assert withheld in capsys.readouterr().out
    add_labels(trained, CHALLENGE, out, "dev")
    assert main(["verify", folder]) == 0
    assert main(["publish", folder, "team/x", "--dry_run"]) == 0
    page = capsys.readouterr().out
    assert "phases train and dev the answer is given; for final it is withheld." in page
    (row,) = (line for line in page.splitlines() if line.startswith("| digits_lo | dev |"))
    assert "`seed_membership`, `solution.csv`" in row
    leaks = ["leaks", str(out), "--trained", str(trained)]
    assert main(leaks) == 1  # nobody said that dev was to be revealed
    err = capsys.readouterr().err
    assert f"{CHALLENGE}/{DEV}/solution.csv: is not among what the table discloses" in err
    assert main([*leaks, "--revealed", "final"]) == 1
    assert (
        "The release reveals dev: if that is meant, give --revealed dev" in capsys.readouterr().out
    )
    assert main([*leaks, "--revealed", "dev"]) == 0


def test_one_phase_after_the_other_and_the_same_again(copy, capsys):
    trained, out = copy
    both = shutil.copytree(out, out.parent / "both")
    command = ["release", str(trained), "--to", str(both), "--reveal", "dev", "final"]
    assert main(command) == 0
    assert capsys.readouterr().out == "".join(
        f"Added the labels of 3 models of {phase} to {both / CHALLENGE}\n"
        for phase in ("dev", "final")
    )
    add_labels(trained, CHALLENGE, out, "final")
    once = files_below(out)
    add_labels(trained, CHALLENGE, out, "final")
    assert files_below(out) == once
    add_labels(trained, CHALLENGE, out, "dev")
    assert check_files(out / CHALLENGE)[1] == []
    assert check_release(out, trained, [CHALLENGE], revealed=["dev", "final"]) == []
    assert files_below(both) == files_below(out)


@pytest.mark.slow
@pytest.mark.parametrize("moved", range(0, 18, 3))
def test_a_run_that_is_broken_off_goes_on(copy, original, monkeypatch, moved):
    trained, out = copy
    rename, count = os.replace, 0

    def stop(source, target):
        nonlocal count
        if str(target).startswith(str(out)) and ".aside" not in str(target):
            count += 1
            if count > moved:
                raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        add_labels(trained, CHALLENGE, out, "dev")
    monkeypatch.setattr(os, "replace", rename)
    add_labels(trained, CHALLENGE, out, "dev")
    assert check_release(out, trained, [CHALLENGE], revealed=["dev"]) == []
    assert check_files(out / CHALLENGE)[1] == []


SPOILT = {
    "another solution": (
        lambda t, o: shutil.copy(t / CHALLENGE / FINAL / "solution.csv", t / CHALLENGE / DEV),
        "is not what its seed_membership gives",
    ),
    "a changed file": (
        lambda t, o: (o / CHALLENGE / DEV / "seed_challenge").write_text("0" * 32 + "\n"),
        "seed_challenge is not what was released",
    ),
    "a missing file": (
        lambda t, o: (o / CHALLENGE / DEV / "model.pt").unlink(),
        "model.pt of the release is missing",
    ),
    "a stranger": (
        lambda t, o: (o / CHALLENGE / DEV / "prediction.csv").write_text("0.5"),
        "prediction.csv is not what was released",
    ),
    "other commitments": (
        lambda t, o: (o / "digits.release/commitments.json").write_text(
            (o / "digits.release/commitments.json").read_text().replace('": "', '": "0', 3)
        ),
        "is not a release's commitments",
    ),
    "no release": (lambda t, o: shutil.rmtree(o / "digits.release"), "There is no release"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_not_the_release_of_these_models_is_left_alone(copy, kind):
    trained, out = copy
    change, words = SPOILT[kind]
    change(trained, out)
    before = files_below(out)
    with pytest.raises(ValueError, match=words):
        add_labels(trained, CHALLENGE, out, "dev")
    assert files_below(out) == before


def test_anybody_makes_solutions_of_a_revealed_file(copy, original, tmp_path, capsys):
    trained, out = copy
    file = tmp_path / "dev.json"
    file.write_text(as_text(reveal(original.trained, CHALLENGE, "dev")))
    folder = str(out / CHALLENGE)
    assert main(["verify", folder, str(file), "--to", str(tmp_path / "truth")]) == 0
    written = tmp_path / "truth" / DEV / "solution.csv"
    assert written.read_bytes() == (trained / CHALLENGE / DEV / "solution.csv").read_bytes()
    assert main(["verify", folder]) == 0
    assert main(["verify", folder, str(file), "--to", folder]) == 0  # beside the models
    assert main(["verify", folder]) == 0
    assert main(["verify", folder, "--to", folder]) == 2
    rng = np.random.default_rng(0)
    for place in (out / CHALLENGE).glob("*/dev/model_*"):
        target = out / f"{CHALLENGE}.predictions" / place.relative_to(out / CHALLENGE)
        target.mkdir(parents=True)
        line = ",".join(map(str, rng.random(200).tolist()))
        (target / "prediction.csv").write_text(line + "\n")
    capsys.readouterr()
    assert main(["score", folder, "--phase", "dev"]) == 0
    assert "digits_inf" in capsys.readouterr().out
    file.write_text(file.read_text().replace("0,1", "1,0", 1))
    assert main(["verify", folder, str(file), "--to", str(tmp_path / "no")]) == 1
    assert not (tmp_path / "no").exists()
    written.write_text("0,1\n")
    file.write_text(as_text(reveal(original.trained, CHALLENGE, "dev")))
    assert main(["verify", folder, str(file), "--to", str(tmp_path / "truth")]) == 1
    assert "holds something else" in capsys.readouterr().err
