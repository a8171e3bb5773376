"""The prize winners and ours, one command each, in all four challenges: signals, attack, submit."""

import numpy as np
import pytest
from small_competition import MODELS, train_scenario, write_datasets

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.data.datasets import load_dataset
from mico_competition.models.small_roberta import make_small_roberta

SCENARIOS = ("cifar10_inf", "purchase100_lo", "purchase100_ddp", "sst2_inf")
FOLDERS = {"purchase100_ddp": "ddp"}
ATTACKS = ("winner-2023", "first-principles", "fleshman")
LEARNED = [("purchase100_ddp", "best"), ("purchase100_lo", "suri")]  # of CNNs they take minutes
CASES = [*((scenario, attack) for scenario in SCENARIOS for attack in ATTACKS), *LEARNED]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Eight train models, one dev and one final model of a scenario of each challenge."""
    root = tmp_path_factory.mktemp("four")
    datasets = write_datasets(root / "datasets")
    sentences = load_dataset("sst2", datasets).sentences
    base = make_small_roberta(
        root / "base", sentences, vocab_size=300, hidden_size=16, num_layers=1, num_heads=2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "train", 8)
        for name in SCENARIOS:
            train_scenario(root / "trained", name, datasets, base)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "attack"), CASES)
def test_one_command_each(trained, scenario, attack, tmp_path, capsys):
    challenge = FOLDERS.get(scenario, scenario.partition("_")[0])
    folder, out = trained / "trained" / challenge, tmp_path / challenge
    words = [attack, str(folder), "--predictions", str(out), "--phase", "dev", "--phase", "final"]
    flags = ["--dataset_dir", str(trained / "datasets"), "--cache", str(trained / "cache")]
    assert main(["attack", *words, *flags]) == 0, capsys.readouterr()
    assert f"predictions of {attack} for 2 models" in capsys.readouterr().out
    for model in walk_challenge(folder, phases=["dev", "final"]):
        scores = np.loadtxt(model.prediction_in(out), delimiter=",")
        assert scores.shape == (20,) and len(np.unique(scores)) > 10
        assert scores.min() >= 0 and scores.max() <= 1
