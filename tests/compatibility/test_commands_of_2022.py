"""docs/COMPATIBILITY.md: commands of 2022, the repository's files, and what training writes."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers_compatibility import ROOT, SEED_FILES, SEEDS, check

from mico_competition.cli import train
from mico_competition.competition.splits import draw_seeds
from mico_competition.competition.submission import check_zip
from mico_competition.competition.table import SCENARIOS
from mico_competition.training.settings import resolve


@check("metadata")
@check("train_purchase100_hi.sh")
@check("make_competition_bundle.sh")
@check("accountant.py")
@check("cifar10.ipynb")
def test_files_of_the_repository():
    from mico_competition.training.accounting import Mechanism

    assert "python3 $program/score.py $input $output" in (ROOT / "scoring/metadata").read_text()
    launchers = {path.stem.removeprefix("train_") for path in (ROOT / "training").glob("*.sh")}
    tasks = ("cifar10", "purchase100", "sst2")
    assert launchers == {f"{task}_{kind}" for task in tasks for kind in ("inf", "hi", "lo", "ddp")}
    for name in launchers:
        assert '"$@"' in (ROOT / f"training/train_{name}.sh").read_text()
    assert {"cifar10", "purchase100", "sst2", "ddp"} <= {
        path.stem for path in (ROOT / "starting-kit").glob("*.ipynb")
    }
    assert callable(Mechanism.for_target)
    assert not [*ROOT.glob("**/make_competition_bundle.sh")]


def parsed(task, words, patch):
    """The settings that a command of 2022 gives, without training."""
    seen = []
    patch.setattr(train, "run_command", lambda parser, argv: seen.append(parser.parse_args(argv)))
    train.main_of_task(task, words.split())
    given = {name: getattr(seen[0], name, None) for name in train.Settings.__dataclass_fields__}
    return resolve(given)


@check("train_cifar10.py")
@check("train_purchase100.py")
@check("train_sst2.py")
def test_commands_of_2022(monkeypatch):
    shared = "--len_challenge 100 --dataloader_num_workers 4 --logging_steps 10 --dataset_dir /data"
    private = "--max_grad_norm {} --target_epsilon 10.0 --target_delta 1e-5 --secure_mode"
    baskets = (
        f"{shared} --len_training 150000 --batch_size 512 --max_physical_batch_size 128 "
        "--num_epochs 30 --learning_rate 0.001 --lr_scheduler_gamma 0.9 --lr_scheduler_step 5 "
        + private.format(2.6)
    )
    images = (
        f"{shared} --len_training 50000 --batch_size 32 --max_physical_batch_size 128 "
        "--num_epochs 50 --learning_rate 0.005 --lr_scheduler_gamma 0.96 --disable_dp"
    )
    text = (
        f"{shared} --len_training 67349 --batch_size 1024 --max_physical_batch_size 16 "
        "--num_epochs 3 --learning_rate 0.0005 --model_name roberta-base " + private.format(0.1)
    )
    free = ("scenario", "secure_mode", "max_physical_batch_size", "model_name")
    for scenario, words in (
        ("purchase100_hi", baskets),
        ("cifar10_inf", images),
        ("sst2_hi", text),
    ):
        row = SCENARIOS[scenario]
        settings, official = parsed(row.task, words, monkeypatch), resolve({"scenario": scenario})
        for field in train.Settings.__dataclass_fields__:
            if field not in free and not (settings.disable_dp and field == "target_delta"):
                assert getattr(settings, field) == getattr(official, field), (scenario, field)
    with pytest.raises(SystemExit):
        parsed("sst2", "--num_train_epochs 3.0", monkeypatch)
    assert parsed("cifar10", f"{images} --members_first", monkeypatch).members_first


@check("accuracy")
@check("arguments.yml")
@check("model_0")
def test_what_training_writes(tmp_path):
    from mico_competition.competition.layout import model_path
    from mico_competition.data.datasets import load_digits
    from mico_competition.training.train_many import Run, train_many

    scenario = SCENARIOS["digits_inf"]
    folder = model_path(tmp_path, scenario, "train", 0)
    assert folder == tmp_path / "digits/digits_inf/train/model_0"
    settings = resolve({"scenario": scenario.name, "num_epochs": 1})
    list(train_many(settings, load_digits(), [Run(draw_seeds(), folder, 0)], progress=False))
    metadata = json.loads((folder / "metadata.json").read_text())
    assert 0 <= metadata["results"]["accuracy"] <= 1 and metadata["privacy"] is None
    assert metadata["settings"]["num_epochs"] == 1
    written = {path.name for path in folder.iterdir()}
    assert written == {*SEED_FILES, "solution.csv", "metadata.json", "model.pt"}


@check("predictions_purchase100.zip")
def test_a_submission_packed_as_in_2022(tmp_path, monkeypatch):
    """Predictions are written into the challenge folder, and zipped by a loop of one's own."""
    monkeypatch.chdir(tmp_path)
    scenarios = ["purchase100_hi", "purchase100_inf", "purchase100_lo"]
    paths = [
        Path("purchase100", scenario, phase, f"model_{i}")
        for scenario in scenarios
        for phase, i in (("dev", 100), ("final", 150))
    ]
    with zipfile.ZipFile("predictions_purchase100.zip", "w") as zipped:
        for path in paths:
            path.mkdir(parents=True)
            (path / "seed_challenge").write_text(f"{SEEDS[0]}\n")
            with open(path / "prediction.csv", "w") as file:
                csv.writer(file).writerow(np.linspace(0, 1, 200))
            zipped.write(path / "prediction.csv")
    assert check_zip("predictions_purchase100.zip", "purchase100") == []
