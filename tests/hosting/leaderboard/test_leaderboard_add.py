"""A submission becomes an entry: every number computed, nothing of the truth told."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers_leaderboard import predictions_of, write_truth, write_zip
from mico_competition.scoring.intervals import bootstrap, bootstrap_average
from mico_competition.scoring.metrics import SCALARS, score
from sklearn.metrics import roc_auc_score

from mico_competition.cli import main
from mico_competition.competition.layout import find_challenges
from mico_competition.hosting.leaderboard.add import About, add, predictions_sha256
from mico_competition.hosting.leaderboard.entries import Entry, read_entries
from mico_competition.hosting.leaderboard.form import check_values, parse_time
from mico_competition.hosting.leaderboard.truth_tree import read_truth

NOW = parse_time("2027-01-02T03:04:05Z")
ABOUT = About("Attack", ("Ada",), submitted=NOW)


@pytest.fixture
def scored(tmp_path):
    """A truth, predictions, their zip, and the entry of phase dev."""
    truth = write_truth(tmp_path / "truth")
    predictions = predictions_of(truth, skill=0.1)
    zip_path = write_zip(tmp_path / "a.zip", predictions)
    mine = read_truth(tmp_path / "truth", "cifar10", "dev")
    (values,) = add(zip_path, [mine], ABOUT, exact=True)
    return truth, predictions, zip_path, mine, values


def pooled(values_by_place, scenario, phase="dev"):
    return [v for place, v in values_by_place.items() if f"/{scenario}/{phase}/" in place]


def test_every_number_is_that_of_the_scoring_program(scored):
    truth, predictions, _, _, values = scored
    assert check_values(values) == []
    both = {}
    for i, (name, result) in enumerate(values["scenarios"].items()):
        both[name] = pooled(truth, name), pooled(predictions, name)
        solutions, guesses = map(np.concatenate, both[name])
        exact = score(solutions, guesses)
        assert result["scores"] == {key: round(exact[key], 4) for key in SCALARS}
        assert result["scores"]["AUC"] == round(roc_auc_score(solutions, guesses), 4)
        intervals = bootstrap(*both[name], seed=i)
        assert result["intervals"]["AUC"] == [round(end, 4) for end in intervals["AUC"]]
        assert result["models"] == 4
    average = np.mean([r["scores"]["TPR_FPR_1000"] for r in values["scenarios"].values()])
    assert values["average"]["score"] == pytest.approx(average, abs=1e-4)
    assert values["average"]["interval"] == [round(end, 4) for end in bootstrap_average(both)]


def test_an_entry_tells_little_of_the_truth(scored):
    """No more of a curve than the report shows, and no hash that labels can be tried on."""
    truth, _, _, mine, values = scored
    assert "solutions" not in repr(mine)
    for result in values["scenarios"].values():
        assert len(result["roc"]["fpr"]) <= 60
    text = json.dumps(values)
    for labels in (truth, {k: v for k, v in truth.items() if "/dev/" in k}):
        lines = ",".join(",".join(map(str, v)) for v in labels.values())
        assert hashlib.sha256(lines.encode()).hexdigest() not in text
    for labels in truth.values():
        assert ",".join(map(str, labels)) not in text.replace(" ", "")


def test_one_model_a_scenario_has_no_interval(tmp_path):
    truth = write_truth(tmp_path / "truth", models=1)
    zip_path = write_zip(tmp_path / "a.zip", predictions_of(truth, 0.1))
    (values,) = add(zip_path, [read_truth(tmp_path / "truth", "cifar10", "dev")], ABOUT)
    assert values["average"]["interval"] is None and check_values(values) == []
    measure = Entry("a", values).measure()
    assert not measure.known and measure.low == measure.high == values["average"]["score"]


def test_a_folder_gives_what_its_zip_gives(scored, tmp_path):
    _, predictions, _, mine, values = scored
    for place, numbers in predictions.items():
        path = tmp_path / "predictions" / place / "prediction.csv"
        path.parent.mkdir(parents=True)
        path.write_text(", ".join(f"{v:.17f}" for v in numbers))  # the same numbers, written anew
    (tmp_path / "predictions" / "sst2").mkdir()
    for folder in (tmp_path / "predictions", tmp_path / "predictions" / "cifar10"):
        (found,) = add(folder, [mine], ABOUT, exact=True)
        assert found == {**values, "submission_sha256": None}
    with pytest.raises(ValueError, match="holds no folder cifar10"):
        add(tmp_path / "predictions" / "sst2", [mine], ABOUT)


def test_the_checksum_is_of_numbers_in_a_fixed_order(scored):
    _, predictions, _, mine, values = scored
    places = list(mine.solutions)
    assert values["predictions_sha256"] == predictions_sha256(places, predictions)
    other = {**predictions, places[0]: predictions[places[0]] + 1e-9}
    assert predictions_sha256(places, other) != values["predictions_sha256"]


def test_both_phases_at_once_and_the_challenge_is_found(tmp_path):
    write_truth(tmp_path / "truth", "cifar10")
    truth = write_truth(tmp_path / "truth", "sst2")
    zip_path = write_zip(tmp_path / "a.zip", predictions_of(truth, 0.1))
    assert find_challenges(tmp_path / "truth") == ["cifar10", "sst2"]
    truths = [
        read_truth(tmp_path / "truth", challenge, phase)
        for challenge in ("cifar10", "sst2")
        for phase in ("dev", "final")
    ]
    found = add(zip_path, truths, ABOUT)
    assert [(v["challenge"], v["phase"]) for v in found] == [("sst2", "dev"), ("sst2", "final")]
    assert found[0]["predictions_sha256"] != found[1]["predictions_sha256"]
    with pytest.raises(ValueError, match="not clear of which challenge"):
        add(write_zip(tmp_path / "b.zip", {"x": np.zeros(2)}), truths, ABOUT)


def test_the_data_version_is_of_commitments_and_of_nothing_else(tmp_path):
    places = list(write_truth(tmp_path / "truth"))
    assert read_truth(tmp_path / "truth", "cifar10", "dev").data_version is None
    folder = tmp_path / "truth" / "cifar10"
    inner = {place.partition("/")[2]: f"{i:064x}" for i, place in enumerate(places)}
    openings = {place: {"salt": "00" * 32, "commitment": c} for place, c in inner.items()}
    (folder / "openings.json").write_text(json.dumps({"openings": openings}))
    first = read_truth(tmp_path / "truth", "cifar10", "dev").data_version
    lines = "".join(f"{p} {inner[p.partition('/')[2]]}\n" for p in places if "/dev/" in p)
    assert first == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    (folder / "openings.json").unlink()
    (folder.parent / "cifar10.release").mkdir()  # as in what a release hands out
    public = folder.parent / "cifar10.release" / "commitments.json"
    public.write_text(json.dumps({"commitments": inner}))
    assert read_truth(tmp_path / "truth", "cifar10", "dev").data_version == first
    assert read_truth(tmp_path / "truth", "cifar10", "final").data_version != first
    assert read_truth(tmp_path / "truth", "cifar10", "dev", "v1").data_version == "v1"


def test_commitments_are_found_as_release_writes_them(tmp_path):
    """By the code of releases, which scoring does not import as it needs torch."""
    from mico_competition.competition.layout import release_folder, walk_challenge
    from mico_competition.release.commitments import (
        COMMITMENTS_FILE,
        public_commitments,
        save_openings,
    )

    root = tmp_path / "truth"
    write_truth(root, phases=("dev",))
    models = walk_challenge(root / "cifar10")
    openings = {
        m.relative_path: {"salt": "ab" * 32, "commitment": f"{m.model_id:064x}"} for m in models
    }
    save_openings(root, "cifar10", openings)
    first = read_truth(root, "cifar10", "dev").data_version
    assert first.startswith("sha256:")
    (root / "cifar10" / "openings.json").unlink()
    public = public_commitments("cifar10", models, openings)
    path = release_folder(root / "cifar10") / COMMITMENTS_FILE
    path.parent.mkdir()
    path.write_text(json.dumps(public))
    assert read_truth(root, "cifar10", "dev").data_version == first
    del public["commitments"][models[0].relative_path]
    path.write_text(json.dumps(public))
    assert read_truth(root, "cifar10", "dev").data_version is None


def test_all_faults_of_a_submission_at_once_and_none_of_the_truth(scored, tmp_path):
    _, predictions, _, mine, _ = scored
    places = list(mine.solutions)
    bad = {**predictions, places[1]: np.full(19, 0.5)}
    del bad[places[0]]
    with pytest.raises(ValueError, match="2 faults") as error:
        add(write_zip(tmp_path / "bad.zip", bad), [mine], ABOUT)
    assert places[0] in str(error.value) and places[1] in str(error.value)
    with pytest.raises(ValueError, match="There is no file or folder"):
        add(tmp_path / "none.zip", [mine], ABOUT)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match="zip it again"):
        add(tmp_path / "text.zip", [mine], ABOUT)
    path = tmp_path / "truth" / places[0] / "solution.csv"
    path.write_text("0,1,two")
    with pytest.raises(ValueError, match="each 0 or 1") as error:
        read_truth(tmp_path / "truth", "cifar10", "dev")
    assert "two" not in str(error.value)
    with pytest.raises(ValueError, match="There are no solutions in"):
        read_truth(tmp_path / "truth", "sst2", "dev")


def test_the_verbs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = write_truth(tmp_path / "truth")
    write_zip(tmp_path / "a.zip", predictions_of(truth, 0.1))
    flags = ["--truth", "truth", "--name", "It's <mine>", "--author", "A", "--author", "B"]
    assert main(["leaderboard", "add", "a.zip", *flags]) == 0
    assert "cifar10 dev: average TPR at 10% FPR 0." in capsys.readouterr().out
    assert main(["leaderboard", "check", "leaderboard"]) == 0
    assert main(["leaderboard", "build", "leaderboard"]) == 0
    assert "1 entry\n" in capsys.readouterr().out
    assert (tmp_path / "site" / "index.html").is_file()
    assert [e.phase for e in read_entries("leaderboard")] == ["dev"]  # final only if asked for
    assert main(["leaderboard", "add", "a.zip", *flags, "--phase", "final"]) == 0
    later = ["--final_opens", "2099-01-01T00:00:00Z"]
    assert main(["leaderboard", "build", "leaderboard", *later]) == 0
    assert "Left out 1 entry of the final phase" in capsys.readouterr().out
    assert main(["leaderboard", "add", "a.zip", *flags, "--link", "javascript:x"]) == 1
    assert capsys.readouterr().err.startswith("mico: This cannot stand in an entry:")
    (tmp_path / "leaderboard" / "cifar10" / "x.json").write_text("{}")
    assert main(["leaderboard", "check", "leaderboard"]) == 1
    assert "cifar10/x.json: name: is missing" in capsys.readouterr().err
    assert main(["leaderboard", "build", "leaderboard"]) == 1


def test_nothing_heavy_is_imported_to_score():
    """Processes of score-all start in a moment, and need numpy alone."""
    code = (
        "import sys; import mico_competition.hosting.leaderboard.score_workers;"
        "heavy = {'torch', 'pandas', 'matplotlib', 'jinja2', 'tqdm'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout.strip() == "[]", finished.stderr
