"""A submission from challenge folder to zip: complete, deterministic, all faults at once."""

import shutil
import zipfile

import numpy as np
import pytest
from mico_competition.scoring import score

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.submission import (
    check_folder,
    check_zip,
    pack,
    score_phase,
    unpack_submission,
    write_prediction,
)
from mico_competition.data.datasets import load_dataset
from mico_competition.evaluation.predict import attack_challenge


@pytest.fixture
def challenge(competition, tmp_path):
    """A copy of the released Purchase-100 challenge, and predictions beside it."""
    folder = shutil.copytree(competition.released / "purchase100", tmp_path / "purchase100")
    predictions = tmp_path / "predictions" / "purchase100"
    attack_challenge(
        folder, lambda task: load_dataset(task, competition.datasets), predictions=predictions
    )
    return folder, predictions


def test_the_verbs_end_to_end(challenge, tmp_path):
    folder, predictions = challenge
    assert check_folder(folder, predictions) == []
    archive = pack(folder, tmp_path / "submission.zip", predictions)
    assert check_zip(archive, folder) == []
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
    assert names == [
        f"purchase100/purchase100_{s}/{phase}/model_{i}/prediction.csv"
        for s in ("hi", "inf", "lo")
        for phase, i in (("dev", 100), ("final", 150))
    ]
    scores = score_phase(folder, predictions)
    assert sorted(scores) == ["purchase100_hi", "purchase100_inf", "purchase100_lo"]
    for name, values in scores.items():
        pooled = [[], []]
        for model in walk_challenge(folder, phases=["train"]):
            if model.scenario == name:
                solution = np.loadtxt(model.path / "solution.csv", delimiter=",")
                pooled[0].extend(solution)
                pooled[1].extend(np.loadtxt(model.prediction_in(predictions), delimiter=","))
        assert values["AUC"] == score(*pooled)["AUC"]


def test_the_zip_is_the_same_bytes_for_the_same_predictions(challenge, tmp_path):
    folder, predictions = challenge
    first = pack(folder, tmp_path / "a.zip", predictions).read_bytes()
    for path in predictions.rglob("prediction.csv"):
        path.touch()
    assert pack(folder, tmp_path / "b.zip", predictions).read_bytes() == first


def test_predictions_may_lie_in_the_model_folders_as_in_2022(competition, challenge, tmp_path):
    folder, predictions = challenge
    attack_challenge(folder, lambda task: load_dataset(task, competition.datasets))
    assert pack(folder, tmp_path / "a.zip").read_bytes() == (
        pack(folder, tmp_path / "b.zip", predictions).read_bytes()
    )


def test_the_attack_is_run_on_each_models_own_points(competition, challenge):
    """Against a loop over items, as 2022's notebooks had it."""
    import torch

    from mico_competition import ChallengeDataset, load_model

    folder, predictions = challenge
    dataset = load_dataset("purchase100", competition.datasets)
    for model in walk_challenge(folder)[:3]:
        points = ChallengeDataset.from_path(model.path, dataset).get_challenges()
        network = load_model("purchase100", model.path).double()
        expected = [
            float(network(record.double()).softmax(0)[label].detach()) for record, label in points
        ]
        written = np.loadtxt(model.prediction_in(predictions), delimiter=",")
        np.testing.assert_allclose(written, expected, rtol=1e-5)
    assert torch.is_grad_enabled()


def test_all_faults_are_listed_at_once(challenge, tmp_path):
    folder, predictions = challenge
    (predictions / "purchase100_hi/dev/model_100/prediction.csv").unlink()
    (predictions / "purchase100_lo/dev/model_100/prediction.csv").write_text("0.5,0.5\n")
    (predictions / "purchase100_inf/final/model_150/prediction.csv").write_text("nan" + ",1.5" * 19)
    faults = check_folder(folder, predictions)
    for name in ("hi/dev/model_100", "lo/dev/model_100", "inf/final/model_150"):
        assert any(f"purchase100_{name}/prediction.csv" in fault for fault in faults), name
    with pytest.raises(ValueError, match="not complete") as error:
        pack(folder, tmp_path / "submission.zip", predictions)
    for fault in faults:
        assert fault in str(error.value)
    assert not (tmp_path / "submission.zip").exists()


def test_a_folder_of_predictions_that_is_not_there_is_one_fault(challenge, capsys):
    folder, _ = challenge
    for verb in ("check", "submit", "score"):
        assert main([verb, str(folder), "--predictions", "nosuch"]) == 1
        told = "mico: There is no folder nosuch: name the predictions' folder.\n"
        assert capsys.readouterr().err == told


def test_missing_scenarios_are_one_fault(challenge):
    folder, predictions = challenge
    shutil.rmtree(folder / "purchase100_lo")
    shutil.rmtree(folder / "purchase100_hi")
    (fault,) = check_folder(folder, predictions)
    assert "holds no models of purchase100_hi, purchase100_lo, and a submission needs" in fault
    assert "all scenarios of challenge purchase100" in fault and "again" not in fault


def test_half_a_download_is_a_fault(challenge, tmp_path):
    folder, predictions = challenge
    shutil.rmtree(folder / "purchase100_hi/final/model_150")
    shutil.rmtree(folder / "purchase100_inf/final")
    faults = check_folder(folder, predictions)
    assert len(faults) == 2 and all("fetch the challenge again" in fault for fault in faults)
    shutil.rmtree(folder / "purchase100_lo/final")
    assert len(check_folder(folder, predictions)) == 3
    with pytest.raises(ValueError, match="3 faults"):
        pack(folder, tmp_path / "half.zip", predictions)


def test_a_damaged_zip_is_a_fault_and_no_traceback(challenge, tmp_path):
    folder, predictions = challenge
    content = bytearray(pack(folder, tmp_path / "good.zip", predictions).read_bytes())
    start = content.index(b"prediction.csv") + len(b"prediction.csv")
    for place in range(start, start + 40):
        content[place] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(content)
    assert "zip it again" in check_zip(tmp_path / "bad.zip", folder)[0]
    with pytest.raises(ValueError, match="zip it again"):
        unpack_submission(tmp_path / "bad.zip", tmp_path / "unpacked")


@pytest.mark.parametrize("text", ["", "0,xyz", "0.5" + ",1" * 19, "1,0"])
def test_a_faulty_solution_is_named_and_not_told(challenge, text):
    folder, predictions = challenge
    path = folder / "purchase100_lo/train/model_0/solution.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not one line of .* values, each 0 or 1") as error:
        score_phase(folder, predictions)
    assert "xyz" not in str(error.value)


def test_faults_of_a_zip(challenge, tmp_path):
    folder, predictions = challenge
    path = pack(folder, tmp_path / "good.zip", predictions)
    (tmp_path / "text.zip").write_text("hello")
    assert "zip it again" in check_zip(tmp_path / "text.zip", folder)[0]
    assert "no file" in check_zip(tmp_path / "none.zip", folder)[0]
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in good.namelist()[1:]:
            less.writestr(name, good.read(name))
    assert any("model_100" in fault for fault in check_zip(tmp_path / "less.zip", folder))
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as out:
        out.writestr("../outside.csv", "1")
    assert "leads out" in check_zip(tmp_path / "out.zip", folder)[0]
    assert not (tmp_path / "outside.csv").exists()
    with pytest.raises(ValueError, match="leads out"):
        unpack_submission(tmp_path / "out.zip", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_scores_out_of_range_are_never_written(tmp_path, value):
    with pytest.raises(ValueError, match="at index 1"):
        write_prediction(tmp_path / "prediction.csv", [0.5, value])
    assert list(tmp_path.iterdir()) == []


def test_predictions_keep_every_digit(tmp_path):
    values = np.random.default_rng(0).random(200) ** 40
    write_prediction(tmp_path / "prediction.csv", values)
    read = np.loadtxt(tmp_path / "prediction.csv", delimiter=",")
    assert (read == values).all()


def test_a_phase_without_solutions_cannot_be_scored(challenge):
    folder, predictions = challenge
    with pytest.raises(ValueError, match="solutions of phase dev are not disclosed"):
        score_phase(folder, predictions, phase="dev")


def test_a_folder_that_is_no_challenge(tmp_path):
    with pytest.raises(ValueError, match="no challenge folder"):
        check_folder(tmp_path / "cifar10")
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(ValueError, match="holds no models"):
        check_folder(tmp_path / "cifar10")
    with pytest.raises(ValueError, match="is not named after its challenge"):
        check_folder(tmp_path)
