"""A release holds what the table discloses, and nothing else."""

import json
import shutil

import pytest
import torch
from helpers_release import write_model
from safetensors.torch import load_file

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import CHALLENGES, SCENARIOS, disclosed_files
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.public_files import PUBLIC_METADATA, write_public_files
from mico_competition.release.release import release, write_reference

WEIGHTS = {
    "cifar10": {"model.pt"},
    "purchase100": {"model.pt"},
    "sst2": {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"},
}


@pytest.fixture
def trained(trained, tmp_path):
    """The digits' models, made without training, to be changed at will."""
    return shutil.copytree(trained.parent, tmp_path / "trained")


CONFIGURATIONS = {"metadata.json", "config.json", "tokenizer_config.json"}


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
        assert {path.name for path in model.path.iterdir()} == expected, model.relative_path
        for name in expected:
            original = competition.trained / challenge / model.relative_path / name
            if name in CONFIGURATIONS:
                whole = json.loads(original.read_text())
                public = json.loads((model.path / name).read_text())
                assert all(
                    whole[key] == value for key, value in public.items() if key != "settings"
                )
            else:
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
            source = competition.trained / challenge / model.relative_path
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
        assert '"model_name": null' in text


def test_a_wrong_root_is_answered_with_the_right_one(competition, tmp_path):
    with pytest.raises(ValueError, match="--output_dir` was given"):
        release(competition.trained / "sst2", "sst2", tmp_path)


def test_the_reference_holds_solutions_of_one_phase_only(competition, tmp_path):
    assert write_reference(competition.trained, "cifar10", "dev", tmp_path / "ref") == 3
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        f"ref/cifar10/cifar10_{s}/dev/model_100/solution.csv" for s in ("hi", "inf", "lo")
    ]


def test_a_release_is_whole_or_not_there(trained, tmp_path):
    (trained / "digits/digits_lo/train/model_1/solution.csv").unlink()
    with pytest.raises(ValueError, match=r"no solution\.csv in .*model_1"):
        release(trained, "digits", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_full_disk_is_a_sentence_that_names_the_folder(trained, tmp_path, monkeypatch, capsys):
    def full(path, mode):
        return open("/dev/full", "wb", buffering=0) if "x" in mode else open(path, mode)

    monkeypatch.setattr("mico_competition.models.checkpoints.open", full, raising=False)
    out = tmp_path / "out"
    assert main(["release", str(trained), "--challenge", "digits", "--to", str(out)]) == 1
    advice = "free some space, and run the same command again."
    assert capsys.readouterr().err.endswith(f"mico: {out}: No space left on device: {advice}\n")
    assert not list(out.glob("*"))


def test_an_earlier_release_is_not_overwritten(trained, tmp_path):
    for taken in ("digits", "digits.release"):
        (tmp_path / f"in {taken}" / taken).mkdir(parents=True)
        with pytest.raises(ValueError, match=f"{taken} exists already"):
            release(trained, "digits", tmp_path / f"in {taken}")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow
def test_the_same_models_give_the_same_release(trained, tmp_path):
    assert release(trained, "digits", tmp_path / "one") == 12
    moved = shutil.copytree(trained, tmp_path / "moved", copy_function=shutil.copyfile)
    release(moved, "digits", tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert {time for time, _, _ in one.values()} == {315532800 * 10**9}
    assert sum(name.endswith(".zip") for name in one) == 9


def test_release_json_says_what_is_disclosed(trained, tmp_path):
    release(trained, "digits", tmp_path)
    value = json.loads((tmp_path / "digits.release/release.json").read_text())
    assert (value["format"], value["challenge"], value["revealed"]) == (2, "digits", [])
    assert set(value["scenarios"]) == set(CHALLENGES["digits"])
    assert value["scenarios"]["digits_lo"] == {
        "phases": {"train": 2, "dev": 1, "final": 1},
        "privacy": {"epsilon": 4.0, "delta": 1e-5, "max_grad_norm": 1.0},
        "accuracy": 0.5005,  # of models 0 and 1, not of 100 and 150
        "len_dataset": 1797,
        "len_training": 120,
        "len_challenge": 100,
    }
    assert value["scenarios"]["digits_inf"]["privacy"] is None


@pytest.mark.slow
def test_decimal_seeds_of_withheld_models_need_a_word(trained, tmp_path):
    folder = trained / "digits/digits_inf/dev/model_100"
    shutil.rmtree(folder)
    write_model(folder, "digits_inf", 100, Seeds(12345678, 2**62 + 5, 2**61 + 4_000_000_007))
    with pytest.raises(ValueError, match=r"dev/model_100 has decimal seeds .* --splits_of_2022"):
        release(trained, "digits", tmp_path / "out")
    release(trained, "digits", tmp_path / "out", splits_of_2022=True)
    released = tmp_path / "out/digits/digits_inf/dev/model_100/seed_challenge"
    assert released.read_text() == "12345678\n"
    with (tmp_path / "out/digits.release/release.json").open("a") as file:
        file.write(str((2**61 + 4_000_000_007) % 2**32))  # the 32 bits that count
    assert any(
        "release.json: tells seed_membership of digits_inf/dev/model_100" in fault
        for fault in check_release(tmp_path / "out", trained, ["digits"])
    )


def test_models_that_can_be_told_apart_are_refused(trained, tmp_path):
    path = trained / "digits/digits_hi/final/model_150/metadata.json"
    path.write_text(path.read_text().replace('"secure_mode": false', '"secure_mode": true'))
    with pytest.raises(ValueError, match=r"settings in the metadata of .*model_150 is not that of"):
        release(trained, "digits", tmp_path / "out")


def test_a_release_that_leaks_never_stands(trained, tmp_path):
    for path in trained.glob("digits/digits_lo/*/*/metadata.json"):
        path.write_text(path.read_text().replace('"sampler": "shuffle"', '"sampler": "/home/ann"'))
    with pytest.raises(ValueError, match="digits was not released") as caught:
        release(trained, "digits", tmp_path / "out")
    assert "model_150/metadata.json: has a sampler that is not one of the allowed val" in str(
        caught.value
    )
    assert not list((tmp_path / "out").glob("*"))
    assert not (trained / "digits/openings.json").exists()


def test_checkpoints_of_2022_are_written_as_todays(competition, tmp_path):
    """With Opacus's prefix, positions among the tensors, and a storage longer than its tensor."""
    place = "sst2/sst2_lo/dev/model_100"
    folder = shutil.copytree(competition.trained / place, tmp_path / place)
    state = {f"_module.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    state["_module.roberta.embeddings.position_ids"] = torch.arange(9)[None]
    longer = torch.cat([state["_module.classifier.out_proj.bias"], torch.ones(100)])
    state["_module.classifier.out_proj.bias"] = longer[:2]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    [model] = walk_challenge(tmp_path / "sst2")
    write_public_files(model, tmp_path / "out")
    written = (tmp_path / "out/model.safetensors").read_bytes()
    assert written == (competition.trained / place / "model.safetensors").read_bytes()
    assert not (tmp_path / "out/pytorch_model.bin").exists()


def test_what_software_notes_of_itself_stays_behind(competition, tmp_path):
    place = "sst2/sst2_lo/dev/model_100"
    folder = shutil.copytree(competition.trained / place, tmp_path / place)
    for name in ("config.json", "tokenizer_config.json"):
        value = {**json.loads((folder / name).read_text()), "_name_or_path": "/home/ann/base"}
        (folder / name).write_text(json.dumps(value))
    (folder / "seed_challenge").write_text((folder / "seed_challenge").read_text() + "\n \n")
    [model] = walk_challenge(tmp_path / "sst2")
    write_public_files(model, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (competition.released / place / path.name).read_bytes()
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
        write_public_files(model, tmp_path / "again")


@pytest.mark.slow
def test_the_verbs_take_all_challenges_that_are_there(competition, tmp_path, capsys):
    root = tmp_path / "trained"
    for challenge in ("cifar10", "purchase100"):
        shutil.copytree(competition.trained / challenge, root / challenge)
    out = str(tmp_path / "out")
    assert main(["release", str(root), "--to", out]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cifar10",
        "cifar10.release",
        "purchase100",
        "purchase100.release",
    ]
    assert main(["leaks", out, "--trained", str(root), "--challenge", "purchase100"]) == 0
    assert "No leak found in purchase100" in capsys.readouterr().out
    (tmp_path / "out/purchase100/notes.txt").write_text("")
    assert main(["leaks", out, "--trained", str(root)]) == 1
    captured = capsys.readouterr()
    assert "purchase100/notes.txt: is not among" in captured.err
    assert "Do not publish: " in captured.out and "No leak" not in captured.out
    assert main(["release", str(tmp_path), "--to", out]) == 1
    assert "no challenge folder below" in capsys.readouterr().err


def test_all_that_is_damaged_is_listed_at_once(trained, tmp_path):
    folder = trained / "digits"
    (folder / "digits_lo/train/model_1/solution.csv").unlink()
    (folder / "digits_hi/dev/model_100/model.pt").write_bytes(b"")
    cut = folder / "digits_hi/train/model_0/model.pt"
    cut.write_bytes(cut.read_bytes()[:1000])
    (folder / "digits_inf/final/model_150/metadata.json").write_text("{")
    (folder / "digits_inf/final/model_150/seed_membership").write_text("")
    with pytest.raises(ValueError, match="^Models are damaged: put back") as caught:
        release(trained, "digits", tmp_path / "out")
    found = str(caught.value).splitlines()[1:]
    places = [
        "hi/train/model_0",
        "hi/dev/model_100",
        *["inf/final/model_150"] * 2,
        "lo/train/model",
    ]
    assert len(found) == 5 and all(place in line for place, line in zip(places, found))
