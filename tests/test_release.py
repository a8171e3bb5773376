"""A release holds what the table discloses, and nothing else."""

import json

import pytest

from mico_competition.layout import walk_challenge
from mico_competition.release import PUBLIC_METADATA, release, write_reference
from mico_competition.tracks import CHALLENGES, SCENARIOS, disclosed_files

WEIGHTS = {
    "cifar10": {"model.pt"},
    "purchase100": {"model.pt"},
    "sst2": {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"},
}


@pytest.mark.parametrize("challenge", ["cifar10", "purchase100", "sst2", "ddp"])
def test_every_folder_holds_exactly_what_is_disclosed(competition, challenge):
    models = walk_challenge(competition.released / challenge)
    assert {m.scenario for m in models} == set(CHALLENGES[challenge])
    for model in models:
        scenario = SCENARIOS[model.scenario]
        expected = {
            *WEIGHTS[scenario.task],
            *disclosed_files(scenario, model.phase),
            "metadata.json",
        }
        assert {path.name for path in model.path.iterdir()} == expected, model.place
        for name in expected - {"metadata.json"}:
            original = competition.trained / challenge / model.place / name
            assert (model.path / name).read_bytes() == original.read_bytes()


def test_metadata_is_the_same_for_all_models_of_a_scenario(competition):
    for challenge in ("cifar10", "ddp"):
        texts = {}
        for model in walk_challenge(competition.released / challenge):
            text = (model.path / "metadata.json").read_text()
            texts.setdefault(model.scenario, set()).add(text)
            assert set(json.loads(text)) <= set(PUBLIC_METADATA)
        assert all(len(found) == 1 for found in texts.values())


def test_no_withheld_value_stands_anywhere_in_the_release(competition):
    """Seeds and solutions of dev and final, searched for as text."""
    for challenge in ("cifar10", "purchase100", "sst2", "ddp"):
        for model in walk_challenge(competition.released / challenge, phases=["dev", "final"]):
            source = competition.trained / challenge / model.place
            disclosed = disclosed_files(SCENARIOS[model.scenario], model.phase)
            withheld = {"seed_training", "seed_membership", "solution.csv"} - set(disclosed)
            secrets = [(source / name).read_bytes().strip() for name in withheld]
            assert all(len(secret) > 8 for secret in secrets)
            for path in model.path.iterdir():
                content = path.read_bytes()
                assert not any(secret in content for secret in secrets), path


def test_the_organisers_folders_are_not_told(competition):
    """SST-2 models were trained with --model_name <a local folder>."""
    for model in walk_challenge(competition.released / "sst2"):
        text = "".join(p.read_text(errors="replace") for p in model.path.glob("*.json"))
        assert str(competition.trained.parent) not in text
        assert '"model_name": "base"' in text


def test_a_wrong_root_is_answered_with_the_right_one(competition, tmp_path):
    with pytest.raises(ValueError, match="--output_dir` was given"):
        release(competition.trained / "sst2", "sst2", tmp_path)


def test_the_reference_holds_solutions_of_one_phase_only(competition, tmp_path):
    assert write_reference(competition.trained, "cifar10", "dev", tmp_path / "ref") == 3
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        f"ref/cifar10/cifar10_{s}/dev/model_100/solution.csv" for s in ("hi", "inf", "lo")
    ]


def test_a_release_is_whole_or_not_there(competition, tmp_path):
    import shutil

    copy = shutil.copytree(competition.trained / "cifar10", tmp_path / "cifar10")
    (copy / "cifar10_lo/train/model_1/solution.csv").unlink()
    with pytest.raises(ValueError, match=r"no solution\.csv in .*model_1"):
        release(tmp_path, "cifar10", tmp_path / "out")
    assert not (tmp_path / "out" / "cifar10").exists()
    assert not list((tmp_path / "out").iterdir())


def test_an_earlier_release_is_not_overwritten(competition, tmp_path):
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        release(competition.trained, "cifar10", tmp_path)
