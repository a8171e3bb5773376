"""docs/COMPATIBILITY.md: each row of its tables is true, and so is what the winners' code calls.

A row without a check fails, and so does a check without a row.
"""

import ast
import copy
import csv
import importlib
import inspect
import json
import re
import shutil
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from helpers_scoring import SCENARIOS as SCORED
from helpers_scoring import Competition
from mico_competition.scoring import generate_html, generate_roc, generate_table, score, tpr_at_fpr
from mico_competition.scoring import program as scoring_program
from sklearn.metrics import roc_auc_score, roc_curve
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mico_competition import (
    CNN,
    MLP,
    ChallengeDataset,
    load_cifar10,
    load_model,
    load_purchase100,
    load_sst2,
)
from mico_competition.cli import train
from mico_competition.competition.splits import draw_seeds, seed_text
from mico_competition.competition.submission import check_zip
from mico_competition.competition.table import SCENARIOS
from mico_competition.training.settings import resolve

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/COMPATIBILITY.md").read_text(encoding="utf-8")
OLD = ROOT / "tests/fixtures/2022"
SEEDS = (6230879983245502181, 1687448081092837719, 2966330672645457429)
SEED_FILES = ("seed_challenge", "seed_training", "seed_membership")
N, TRAINING, M = 150, 40, 10


def table(heading):
    """The first cell's name -> the row's cells: call, what it returns or holds, today, note."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = {}
    for line in part.splitlines():
        if line.startswith("| `"):
            call, *cells = (cell.strip() for cell in line.removesuffix("|").split(" | "))
            call = call.removeprefix("| ").strip("`")
            rows[call.partition("(")[0]] = (call, *cells)
    return rows


NAMES = {**table("The package"), **table("Scoring")}
FILES, COMMANDS = table("Files"), table("Commands")
CHECKS = {}


def check(name):
    """Make a function the check of the row `name`."""

    def keep(function):
        CHECKS[name] = function
        return function

    return keep


def found(name):
    """What a dotted name leads to, as in `import` and then attributes."""
    parts = name.split(".")
    thing = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            thing = importlib.import_module(".".join(parts[:end]))
    return thing


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A challenge folder of 2022's form with one model, and the three datasets, all small."""
    from small_competition import write_datasets

    root = tmp_path_factory.mktemp("2022")
    write_datasets(root / "data")
    folder = root / "purchase100/purchase100_hi/train/model_0"
    folder.mkdir(parents=True)
    for name, seed in zip(SEED_FILES, SEEDS):
        (folder / name).write_text(f"{seed}\n")
    shutil.copy(OLD / "mlp_opacus/model.pt", folder)
    dataset = load_purchase100(dataset_dir=f"{root}/data")
    splits = ChallengeDataset.from_path(
        str(folder), dataset=dataset, len_training=TRAINING, len_challenge=M
    )
    with open(folder / "solution.csv", "w") as file:
        csv.writer(file).writerow(splits.get_solutions())
    return root, folder, dataset, splits


def test_every_row_is_checked_and_every_check_has_a_row():
    rows = {**NAMES, **FILES, **COMMANDS}
    assert {row[2] for row in rows.values()} == {"kept", "changed", "gone"}
    generic = {name for name, row in NAMES.items() if row[2] == "gone" or "module with" in row[1]}
    assert set(CHECKS) | generic == set(rows)


@pytest.mark.parametrize("name", [name for name, row in NAMES.items() if "(" in row[0]])
def test_a_call_of_2022_is_one_of_today(name):
    call, _, today, _ = NAMES[name]
    if today == "gone":
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            found(name)
        return
    arguments = ast.parse(f"def f({call.partition('(')[2]}: pass").body[0].args
    names = [argument.arg for argument in arguments.args]
    defaults = [ast.literal_eval(value) for value in arguments.defaults]
    parameters = inspect.signature(found(name)).parameters
    assert list(parameters)[: len(names)] == names
    for added in list(parameters)[len(names) :]:
        assert parameters[added].default is not inspect.Parameter.empty
    for argument, default in zip(reversed(names), reversed(defaults)):
        assert parameters[argument].default in (default, None)


@pytest.mark.parametrize("name", [n for n, row in NAMES.items() if "module with" in row[1]])
def test_a_module_of_2022_has_its_names(name):
    module = importlib.import_module(name)
    names = re.findall(r"`(\w+)`", NAMES[name][1])
    assert len(names) >= 3
    for inner in names:
        assert getattr(module, inner) is not None
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


def test_constants_of_2022():
    from mico_competition.scoring.score import FPR_THRESHOLD, FPR_THRESHOLD_LIST

    from mico_competition.mico import LEN_CHALLENGE

    assert LEN_CHALLENGE == 100 and FPR_THRESHOLD == 0.1
    assert FPR_THRESHOLD_LIST == [0.001, 0.01, 0.05, 0.1, 0.15, 0.2]


@check("mico_competition.ChallengeDataset")
@check("mico_competition.ChallengeDataset.from_path")
def splits_are_those_of_2022(place, tmp_path):
    _, folder, dataset, splits = place
    same = ChallengeDataset(dataset, TRAINING, M, *SEEDS)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(SEEDS[0])).tolist()
    assert splits.challenge.indices == same.challenge.indices == order[: 2 * M]
    keyed = ChallengeDataset(dataset, TRAINING, M, draw_seeds().challenge)
    assert len(keyed.get_challenges()) == 2 * M
    with pytest.raises(ValueError, match="150000"):
        ChallengeDataset.from_path(folder, dataset, len_training=50000)
    with pytest.raises(ValueError, match="seed_challenge"):
        ChallengeDataset.from_path(tmp_path, dataset, len_training=TRAINING)


@check("mico_competition.ChallengeDataset.get_challenges")
@check("mico_competition.ChallengeDataset.get_train_dataset")
@check("mico_competition.ChallengeDataset.get_eval_dataset")
@check("mico_competition.ChallengeDataset.get_solutions")
@check("mico_competition.ChallengeDataset.challenge")
def parts_of_the_splits(place):
    _, _, dataset, splits = place
    assert isinstance(splits.get_challenges(), Subset) and len(splits.get_challenges()) == 2 * M
    whole = splits.get_train_dataset()
    assert isinstance(whole, ConcatDataset) and len(whole) == TRAINING
    assert whole.datasets == [splits.member, splits.training]
    assert len(splits.get_eval_dataset()) == N - TRAINING - M
    # As the winner's code finds a model's members:
    members = [splits.challenge.indices[i] for i in splits.member.indices]
    members += [splits.rest.indices[i] for i in splits.training.indices]
    assert len(set(members)) == TRAINING and isinstance(splits.member.indices, list)
    solutions = splits.get_solutions()
    assert type(solutions) is list and set(solutions) == {0, 1} and sum(solutions) == M
    assert [int(i in members) for i in splits.challenge.indices] == solutions
    assert len(splits.nonmember.indices + splits.evaluation.indices) == N - TRAINING
    hidden = ChallengeDataset(dataset, TRAINING, M, SEEDS[0], None, None)
    for ask in (hidden.get_train_dataset, hidden.get_eval_dataset, hidden.get_solutions):
        with pytest.raises(ValueError, match="not disclosed"):
            ask()
    assert not hasattr(hidden, "training") and not hasattr(hidden, "member")


@check("mico_competition.load_model")
@check("mico_competition.MLP")
@check("mico_competition.MLP.load")
@check("model.pt")
def checkpoints_of_2022_load(place):
    _, folder, _, _ = place
    assert next(iter(torch.load(folder / "model.pt"))).startswith("_module.")
    model, same = load_model("purchase100", str(folder)), MLP.load(str(folder / "model.pt"))
    assert type(model) is type(same) is MLP and not model.training and not same.training
    assert list(model.state_dict()) == [
        *("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
    ]
    records = torch.ones(3, 600)
    assert torch.equal(model(records), same(records)) and model(records).requires_grad
    with pytest.raises(ValueError, match="purchase"):
        load_model("purchase", folder)


@check("pytorch_model.bin")
def a_text_model_of_2022_loads():
    expected = json.loads((OLD / "expected.json").read_text())["roberta"]
    text = load_model("sst2", OLD / "roberta")
    ids = torch.tensor([[0, 17, 42, 250, 2, 1, 1], [0, 5, 6, 7, 8, 9, 2]])
    with torch.no_grad():
        logits = text(input_ids=ids, attention_mask=(ids != 1).long()).logits
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-5)


@check("mico_competition.CNN")
@check("mico_competition.CNN.load")
def the_cnn(tmp_path):
    model = CNN()
    prefixed = {f"_module.{name}": value for name, value in model.state_dict().items()}
    torch.save(prefixed, tmp_path / "model.pt")
    loaded = CNN.load(str(tmp_path / "model.pt"))
    images = torch.rand(2, 3, 32, 32)
    assert not loaded.training and torch.equal(loaded(images), model.eval()(images))


@check("mico_competition.load_cifar10")
def images_are_those_of_2022(place):
    dataset = load_cifar10(dataset_dir=f"{place[0]}/data", download=False)
    image, label = dataset[0]
    mean, deviation = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
    pixels = dataset.storage[0].float().div(255)
    expected = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    assert torch.equal(image, expected) and type(label) is int
    assert not hasattr(dataset, "datasets") and len(Subset(dataset, range(100, 120))) == 20


@check("mico_competition.load_purchase100")
@check("dataset_purchase.pickle")
def baskets_are_those_of_2022(place):
    root, _, dataset, _ = place
    rows = np.loadtxt(root / "data/purchase100/dataset_purchase", dtype=int, delimiter=",")
    assert torch.equal(dataset.inputs(range(len(dataset))), torch.FloatTensor(rows[:, 1:]))
    assert dataset.labels.tolist() == (rows[:, 0] - 1).tolist() and type(dataset[3][1]) is int
    assert not [*root.rglob("*.pickle")]


@check("mico_competition.load_sst2")
def sentences_are_those_of_2022(place):
    dataset = load_sst2(place[0] / "data/sst2")
    assert list(dataset[0]) == ["sentence", "label", "idx"]
    assert dataset[139]["idx"] == 139 and dataset[140]["idx"] == 0
    # As the SST-2 runner-up's code makes a data set of records:
    frame = pd.DataFrame.from_records(Subset(dataset, [1, 0]))
    assert list(frame.columns) == ["sentence", "label", "idx"] and len(frame) == 2
    batch = next(iter(DataLoader(Subset(dataset, range(5)), batch_size=5)))
    assert type(batch["sentence"]) is list and batch["label"].shape == (5,)


@check("mico_competition.scoring.tpr_at_fpr")
@check("mico_competition.scoring.score")
def scores_are_those_of_2022():
    rng = np.random.default_rng(0)
    truth = rng.permutation(400) < 200
    predictions = np.round(rng.random(400) * 0.8 + 0.2 * truth, 2)
    fpr, tpr, _ = roc_curve(truth, predictions)
    result = score(list(truth.astype(int)), list(predictions))
    assert np.array_equal(result["fpr"], fpr) and np.array_equal(result["tpr"], tpr)
    assert result["AUC"] == roc_auc_score(truth, predictions)
    assert result["MIA"] == np.max(tpr - fpr)
    assert result["accuracy"] == np.max(1 - (fpr + (1 - tpr)) / 2)
    for rate in (0.001, 0.01, 0.05, 0.1, 0.15, 0.2):
        best = max(tpr[fpr < rate])
        assert result.pop(f"TPR_FPR_{int(1e4 * rate)}") == best
        assert tpr_at_fpr(truth, predictions, max_fpr=rate) == best
    assert set(result) == {"fpr", "tpr", "AUC", "MIA", "accuracy"}


@check("mico_competition.scoring.generate_roc")
@check("mico_competition.scoring.generate_table")
@check("mico_competition.scoring.generate_html")
def presentations():
    scores = {"a_lo": score([0, 1, 0, 1], [0.1, 0.9, 0.4, 0.3])}
    figure = generate_roc(scores["a_lo"]["fpr"], scores["a_lo"]["tpr"])
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    figure.suptitle("a_lo", x=-0.1, y=0.5)  # as 2022's notebooks do next
    assert plt.gcf() is figure
    with pytest.warns(UserWarning, match="layout has changed"):
        figure.tight_layout(pad=1.0)
    plt.close(figure)
    frame = generate_table(scores)
    assert {"Accuracy", "AUC-ROC", "MIA", "TPR @ 0.1 FPR", "TPR @ 0.001 FPR"} <= set(frame)
    assert list(frame.index) == ["a_lo"] and frame.dtypes.eq(float).all()
    assert generate_html(scores).startswith("<!DOCTYPE html>")


@check("seed_challenge")
def seeds(place, tmp_path):
    _, folder, dataset, splits = place
    copy = shutil.copytree(folder, tmp_path / "purchase100/purchase100_hi/train/model_0")
    (copy / "solution.csv").unlink()
    for name, seed in zip(SEED_FILES, vars(draw_seeds()).values()):
        (copy / name).write_text(seed_text(seed) + "\n")
    assert re.fullmatch(r"[0-9a-f]{32}\n", (copy / "seed_training").read_text())
    keyed = ChallengeDataset.from_path(copy, dataset, len_training=TRAINING, len_challenge=M)
    assert keyed.challenge.indices != splits.challenge.indices
    args = train.argparse.Namespace(split_seed=None, model_id=None, **dict(zip(SEED_FILES, SEEDS)))
    assert [seed_text(seed) for seed in vars(train._seeds(args)[0]).values()] == [*map(str, SEEDS)]


@check("scores.txt")
@check("scores.html")
@check("solution.csv")
@check("prediction.csv")
@check("score.py")
def the_scoring_program(tmp_path):
    scored = Competition(tmp_path)
    assert scoring_program.main([str(scored.inputs), str(scored.outputs)]) == 0
    lines = (scored.outputs / "scores.txt").read_text().splitlines()
    found = dict(line.split(": ") for line in lines)
    assert len(lines) == 28
    for i, scenario in enumerate(sorted(SCORED), start=1):
        result = score(*scored.pooled[scenario])
        for key in set(result) - {"fpr", "tpr"}:
            assert float(found[f"scenario{i}_{key}"]) == result[key]
    tenth = [float(found[f"scenario{i}_TPR_FPR_1000"]) for i in (1, 2, 3)]
    assert float(found["average_TPR_FPR_1000"]) == np.mean(tenth)
    assert not (scored.outputs / "scores.html").exists()
    assert (scored.outputs / "detailed_results.html").exists()


@check("metadata")
@check("train_purchase100_hi.sh")
@check("make_competition_bundle.sh")
@check("accountant.py")
@check("cifar10.ipynb")
def files_of_the_repository():
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
def commands_of_2022(patch):
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
        settings, official = parsed(row.task, words, patch), resolve({"scenario": scenario})
        for field in train.Settings.__dataclass_fields__:
            if field not in free and not (settings.disable_dp and field == "target_delta"):
                assert getattr(settings, field) == getattr(official, field), (scenario, field)
    with pytest.raises(SystemExit):
        parsed("sst2", "--num_train_epochs 3.0", patch)
    assert parsed("cifar10", f"{images} --members_first", patch).members_first


@check("accuracy")
@check("arguments.yml")
@check("model_0")
def what_training_writes(tmp_path):
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
def a_submission_packed_as_in_2022(place, tmp_path, patch):
    """Predictions are written into the challenge folder, and zipped by a loop of one's own."""
    patch.chdir(tmp_path)
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


WINNERS = {
    "tianjian10/MICO": "ChallengeDataset load_model load_cifar10 load_purchase100 load_sst2 "
    "scoring.generate_roc scoring.score",
    "iamgroot42/MICO": "ChallengeDataset load_cifar10 load_model scoring.tpr_at_fpr "
    "scoring.score scoring.generate_roc scoring.generate_table",
    "DevPranjal/mico-first-principles": "ChallengeDataset load_purchase100 load_model load_cifar10",
    "wfleshman/MICO_SST": "ChallengeDataset load_sst2 load_model scoring.score",
}
"""Repository -> what its code imports."""


def test_the_winners_imports_are_there():
    section = PAGE.split("## The prize winners' code\n")[1]
    for repository, names in WINNERS.items():
        assert section.count(f"[{repository}]") == 1
        for name in names.split():
            assert callable(found(f"mico_competition.{name}"))


def test_the_winners_calls_work(place, tmp_path):
    """What their code does with the package's objects, in the forms in which it does so."""
    _, folder, dataset, _ = place
    path = str(folder)
    splits = ChallengeDataset.from_path(
        path, dataset=dataset, len_training=TRAINING, len_challenge=M
    )
    points = splits.get_challenges()
    features, labels = next(iter(DataLoader(points, batch_size=2 * M)))
    assert features.shape == (2 * M, 600) and labels.dtype == torch.int64
    model = load_model("purchase100", path)
    outputs = model(features).detach().numpy()
    assert outputs.shape == (2 * M, 100)
    frozen = load_model("purchase100", path).eval().requires_grad_(False)
    batches = [frozen(x) for x, _ in DataLoader(dataset, batch_size=64)]
    everybody = torch.cat(batches)
    assert everybody.shape == (N, 100)
    assert torch.allclose(everybody[splits.challenge.indices], torch.tensor(outputs), atol=1e-5)
    mask = torch.zeros(N, dtype=torch.int64)
    mask[splits.train_indices] = 1
    assert mask[splits.challenge.indices].tolist() == splits.get_solutions()
    assert np.array([model, frozen], dtype=object).shape == (2,)
    copied = copy.deepcopy(model).train()
    copied.zero_grad()
    torch.nn.functional.cross_entropy(copied(features[:1]), labels[:1]).backward()
    assert [p.grad.shape for p in copied.parameters()] == [p.shape for p in model.parameters()]
    assert [x.shape for x, _ in points][:1] == [(600,)] and points.indices == list(points.indices)
    others = [*splits.member.indices, *splits.training.indices]
    assert len(others) == TRAINING
    result = score(np.array(splits.get_solutions(), dtype=float), outputs[:, 0])
    figure = generate_roc(result.pop("fpr", None), result.pop("tpr", None))
    plt.savefig(tmp_path / "roc.png", bbox_inches="tight")
    plt.close(figure)
    assert (tmp_path / "roc.png").stat().st_size and pd.DataFrame([result]).shape == (1, 9)


def checks():
    """Each check once; what imports transformers is slow."""
    cases = []
    for function in dict.fromkeys(CHECKS.values()):
        marks = [pytest.mark.slow] if function is a_text_model_of_2022_loads else []
        cases.append(pytest.param(function, marks=marks, id=function.__name__))
    return cases


@pytest.mark.parametrize("function", checks())
def test_rows_are_true(function, place, tmp_path, monkeypatch):
    given = {"place": place, "tmp_path": tmp_path, "patch": monkeypatch}
    wanted = inspect.signature(function).parameters
    function(**{name: value for name, value in given.items() if name in wanted})
