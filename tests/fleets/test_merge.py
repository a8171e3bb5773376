"""`mico fleet merge`: parts that fit are one fleet, and every fault is listed before a byte."""

import json
import os
import shutil
import stat
from types import SimpleNamespace

import pytest
from test_finished import model, same_size_and_time, without

from mico_competition.cli import main
from mico_competition.fleets import merge as module
from mico_competition.fleets.ledger import Ledger, append_line
from mico_competition.fleets.merge import merge_fleets
from mico_competition.fleets.status import fleet_states
from mico_competition.support.files import open_private
from mico_competition.support.locks import try_lock

SCENARIO = "digits_inf"
FLAGS = ["--threads", "1", "--workers", "1", "--stack", "1"]


def fleet(out, models, *flags):
    words = ["fleet", SCENARIO, "--models", models, "--out", str(out), *FLAGS]
    return main([*words, "--num_epochs", "1", *flags])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Models 0-2 trained in one place and 3-5 in another; read-only."""
    root = tmp_path_factory.mktemp("fleets")
    assert fleet(root / "ours", "0-2") == 0 and fleet(root / "theirs", "3-5") == 0
    return root


@pytest.fixture
def root(trained, tmp_path):
    """Copies of the parts, which a test may change."""
    for name in ("ours", "theirs"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def contents(*folders):
    """Every file of the folders, with content, time and permissions."""
    return {
        path: (path.read_bytes() if path.is_file() else None, state.st_mtime_ns, state.st_mode)
        for folder in folders
        for path in [folder, *sorted(folder.rglob("*"))]
        for state in [path.stat()]
    }


def merge(root, *words, out="merged"):
    parts = [str(root / "ours"), str(root / "theirs")]
    return main(["fleet", "merge", *parts, "--out", str(root / out), *map(str, words)])


def refusal(root, capsys):
    """The message of a merge that is refused; it leaves nothing, and quotes no seed."""
    before = contents(root)
    assert merge(root) == 1
    error = capsys.readouterr().err
    assert contents(root) == before
    for line in (root / "ours" / "fleet" / SCENARIO / "ledger.jsonl").read_text().splitlines():
        secrets = [v for k, v in json.loads(line).items() if "seed" in k]
        assert not any(str(secret) in error for secret in secrets)
    return error


def edit(root, name, change):
    """Change the rows of a part's ledger."""
    path = root / name / "fleet" / SCENARIO / "ledger.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def shared(root, name, **values):
    """Change what all models of a part share."""
    path = root / name / "fleet" / SCENARIO / "settings.json"
    rows = json.loads(path.read_text())
    for key, value in values.items():
        (rows["settings"] if key in rows["settings"] else rows)[key] = value
    path.write_text(json.dumps(rows))


def test_parts_that_fit_are_one_fleet(root, capsys):
    before = contents(root / "ours", root / "theirs")
    assert merge(root) == 0
    assert "6 of 6 models finished (3 in " in capsys.readouterr().out
    assert contents(root / "ours", root / "theirs") == before
    merged = root / "merged"
    for i, name in enumerate(["ours"] * 3 + ["theirs"] * 3):
        for path in model(root / name, i).iterdir():
            assert (model(merged, i) / path.name).read_bytes() == path.read_bytes()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [merged, *merged.rglob("*")]}
    assert modes == {0o600, 0o700}
    (state,) = fleet_states(merged)
    assert (state.state, state.done) == ("finished", 6)
    assert sorted(path.name for path in root.iterdir()) == ["merged", "ours", "theirs"]


@pytest.mark.slow
def test_a_merged_fleet_has_the_bits_of_one_that_was_trained_in_one_place(root):
    assert merge(root) == 0
    shutil.copytree(root / "merged" / "fleet", root / "whole" / "fleet")
    for name in ("files.jsonl", "events.jsonl"):
        (root / "whole" / "fleet" / SCENARIO / name).unlink()
    assert fleet(root / "whole", "0-5") == 0
    for i in range(6):
        assert files_of(model(root / "whole", i)) == files_of(model(root / "merged", i))
    for name in ("ledger.jsonl", "settings.json"):
        file = f"fleet/{SCENARIO}/{name}"
        assert (root / "merged" / file).read_bytes() == (root / "whole" / file).read_bytes()


def files_of(folder):
    """The files of a model; of its metadata all but the time that it took."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    metadata = json.loads(found.pop("metadata.json"))
    metadata.pop("wall_time_seconds")
    return found, metadata


def test_the_missing_models_are_trained_where_the_parts_were_merged(root, capsys):
    shutil.rmtree(model(root / "theirs", 4))
    seeds = Ledger.read(root / "theirs", SCENARIO).entries[1].seeds
    assert merge(root) == 0
    assert f"`mico fleet {SCENARIO} --out {root}/merged` trains" in capsys.readouterr().out
    assert fleet(root / "merged", "0-6") == 0
    (state,) = fleet_states(root / "merged", verify=True)
    assert (state.state, state.total) == ("finished", 7)
    assert Ledger.read(root / "merged", SCENARIO).entries[4].seeds == seeds


@pytest.mark.slow
def test_a_merged_fleet_is_released_and_attacked(root, capsys):
    assert merge(root) == 0
    merged, released = str(root / "merged"), str(root / "released")
    assert main(["release", merged, "--to", released]) == 0
    assert main(["leaks", released, "--trained", merged]) == 0
    assert main(["attack", f"{released}/digits", "--attack", "loss", "--phase", "train"]) == 0
    assert len(list((root / "released").rglob("prediction.csv"))) == 6


def test_a_model_of_both_parts_is_taken_once(root):
    """Whoever began from a copy of the other's folder has its models too."""
    shutil.copytree(model(root / "ours", 2), model(root / "theirs", 2))
    line = (root / "ours/fleet" / SCENARIO / "ledger.jsonl").read_text().splitlines()[2]
    edit(root, "theirs", lambda rows: rows.append(json.loads(line)))
    recorded = (root / "ours/fleet" / SCENARIO / "files.jsonl").read_text().splitlines()[2]
    append_line(root / "theirs/fleet" / SCENARIO / "files.jsonl", recorded)
    assert merge(root) == 0
    assert len(Ledger.read(root / "merged", SCENARIO).entries) == 6


def test_same_seeds_with_other_bytes_are_refused(root, capsys):
    edit(root, "theirs", lambda rows: rows.extend(rows_of(root / "ours", [1, 2])))
    for i in (1, 2):
        shutil.copytree(model(root / "ours", i), model(root / "theirs", i))
        metadata = model(root / "theirs", i) / "metadata.json"
        metadata.write_text(metadata.read_text() + "\n")
        without(root / "theirs/fleet" / SCENARIO / "events.jsonl", {i}, end=True)
    error = refusal(root, capsys)
    assert "both hold model_1-2, with the same seeds and other files: keep one" in error


def rows_of(out, ids):
    lines = (out / "fleet" / SCENARIO / "ledger.jsonl").read_text().splitlines()
    rows = map(json.loads, lines)
    return [row for row in rows if row["model_id"] in ids]


def test_an_id_of_both_with_other_seeds_is_refused(root, capsys):
    edit(root, "theirs", lambda rows: rows.append({**rows[0], "model_id": 1} | fresh(9)))
    edit(root, "theirs", lambda rows: rows.append({**rows[0], "model_id": 2} | fresh(8)))
    error = refusal(root, capsys)
    assert "both have model_1-2, with other seeds: an id belongs to one part" in error


def fresh(number):
    names = ("seed_challenge", "seed_training", "seed_membership")
    seeds = {name: bytes([number, i] * 8).hex() for i, name in enumerate(names)}
    return seeds | {"train_seed": number}


@pytest.mark.parametrize("kind", ["seed_challenge", "train_seed"])
def test_a_seed_of_two_models_is_refused(root, capsys, kind):
    (row,) = rows_of(root / "ours", [0])
    edit(
        root,
        "theirs",
        lambda rows: rows.append({**row, "model_id": 7} | fresh(9) | {kind: row[kind]}),
    )
    error = refusal(root, capsys)
    assert f"{SCENARIO}/model_0 and {SCENARIO}/model_7 have the same {kind}: whoever" in error


SHARED = {
    "learning_rate": (0.5, "with different --learning_rate (0.002 and 0.5): train one of them"),
    "dataset_fingerprint": ("0" * 64, "differ in the dataset, or the way"),
    "architecture_fingerprint": ("0" * 64, "differ in what the model's code, or its tokenizer,"),
    "training_fingerprint": ("0" * 64, "differ in what the training code computes: train one"),
    "noise_multiplier": (2.0, "differ in the noise multiplier (None and 2.0): train one"),
    "splits_of_2022": (True, "differ in the scheme of the seeds (--splits_of_2022) (False and Tr"),
    "train_seed": (771, "were trained with different --train_seed: train"),
}


def test_everything_that_parts_do_not_share_is_listed_at_once(root, capsys):
    shared(root, "theirs", **{name: value for name, (value, _) in SHARED.items()})
    error = refusal(root, capsys)
    for _, sentence in SHARED.values():
        assert sentence in error
    assert "771" not in error and "model_3: its metadata.json does not state the" in error


def test_another_row_of_the_scenario_is_refused(root, capsys):
    path = root / "theirs" / "fleet" / SCENARIO / "settings.json"
    rows = json.loads(path.read_text())
    rows["stated"]["batch_size"] = 7
    path.write_text(json.dumps(rows))
    assert "digits_inf stated batch_size = 7 (now 30): put that back" in refusal(root, capsys)


def test_damaged_models_and_splits_of_other_seeds_are_all_listed(root, capsys):
    same_size_and_time(model(root / "theirs", 3) / "model.pt")
    solution = model(root / "ours", 0) / "solution.csv"
    solution.write_text(solution.read_text().strip()[::-1] + "\n")
    (root / "ours/fleet" / SCENARIO / "files.jsonl").unlink()
    (root / "ours/fleet" / SCENARIO / "events.jsonl").write_text(
        json.dumps({"time": 1, "event": "run", "models": 3, "at_once": 3}) + "\n"
    )
    (model(root / "ours", 1) / "seed_training").write_text("0" * 32 + "\n")
    (model(root / "theirs", 5) / "metadata.json").unlink()
    error = refusal(root, capsys)
    assert "model_3: model.pt has other content. Put back a copy of the folder, or move" in error
    assert "model_0: solution.csv in" in error and "is not what its seed_membership gives" in error
    assert "model_1: it does not have the seeds of the ledger" in error
    assert "model_5: metadata.json is missing" in error


def test_a_copy_of_a_model_under_another_id_is_refused(root, capsys):
    shutil.copyfile(model(root / "ours", 0) / "model.pt", model(root / "theirs", 3) / "model.pt")
    without(root / "theirs/fleet" / SCENARIO / "files.jsonl", {3})
    without(root / "theirs/fleet" / SCENARIO / "events.jsonl", {3}, end=True)
    error = refusal(root, capsys)
    assert "model_0 in" in error and "have the same weights: one of them is a copy" in error


def test_files_outside_of_a_model_are_never_taken(root, capsys):
    secret = root / "secret"
    secret.write_text("key\n")
    name = os.path.relpath(secret, model(root / "theirs", 3))
    files = root / "theirs/fleet" / SCENARIO / "files.jsonl"
    line = json.loads(files.read_text().splitlines()[0])
    from mico_competition.fleets.finished import files_in

    for other in (name, "./model.pt"):
        line["files"][other] = (
            files_in(root)["secret"] if other == name else line["files"]["model.pt"]
        )
        append_line(files, json.dumps(line))
        error = refusal(root, capsys)
        assert "model_3: its line in files.jsonl holds a name that is no plain path" in error
        del line["files"][other]


def test_a_model_that_the_ledger_does_not_name_is_not_left_behind(root, capsys):
    without(root / "theirs/fleet" / SCENARIO / "ledger.jsonl", {3})
    error = refusal(root, capsys)
    assert "model_3 is not in the ledger, so no merged fleet would hold it" in error


def test_a_file_that_its_line_left_out_is_missed(root, capsys):
    (model(root / "theirs", 3) / "solution.csv").unlink()
    files = root / "theirs/fleet" / SCENARIO / "files.jsonl"
    rows = map(json.loads, files.read_text().splitlines())
    line = next(row for row in rows if row["model_id"] == 3)
    del line["files"]["solution.csv"]
    append_line(files, json.dumps(line))
    assert "model_3: solution.csv is missing" in refusal(root, capsys)


def test_a_fleet_at_work_is_refused_and_one_is_kept_away(root, capsys, monkeypatch):
    with open_private(root / "theirs/fleet" / SCENARIO / "lock") as lock:
        assert try_lock(lock)
        assert merge(root) == 1
        assert "Another fleet is at work in" in capsys.readouterr().err
    with open_private(root / "theirs/fleet" / SCENARIO / "workers.lock") as lock:
        assert try_lock(lock)
        assert merge(root) == 1
        assert "Workers of an earlier fleet are still at work" in capsys.readouterr().err
    assert not (root / "merged").exists()
    taken, codes = module._take, []

    def watched(*arguments):
        codes.append(fleet(root / "ours", "0-3"))
        taken(*arguments)

    monkeypatch.setattr(module, "_take", watched)
    assert merge(root) == 0
    assert codes == [1] and "Another fleet is at work in" in capsys.readouterr().err


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 3, 11, 20])
def test_a_merge_that_is_killed_goes_on_and_nothing_half_copied_counts(root, monkeypatch, after):
    """Killed after so many files: within a model, and between two."""
    copied, names, again = module._copy, [], []

    def killed(source, target):
        if len(names) == after and not again:
            target.write_bytes(source.read_bytes()[:10])
            raise Killed
        names.append(source)
        return copied(source, target)

    monkeypatch.setattr(module, "_copy", killed)
    with pytest.raises(Killed):
        merge_fleets([root / "ours", root / "theirs"], root / "merged")
    assert not (root / "merged").exists()
    names.clear()
    again.append(True)
    merge_fleets([root / "ours", root / "theirs"], root / "merged")
    files = 6 * len(list(model(root / "ours", 0).iterdir()))
    assert len(names) == files - after // 6 * 6  # whole models are not copied again
    (state,) = fleet_states(root / "merged", verify=True)
    assert (state.state, state.done) == ("finished", 6)
    assert sorted(path.name for path in root.iterdir()) == ["merged", "ours", "theirs"]


def test_the_beginning_of_another_merge_is_not_continued(root, monkeypatch, capsys):
    monkeypatch.setattr(module.os, "rename", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        merge_fleets([root / "ours", root / "theirs"], root / "merged")
    monkeypatch.undo()
    edit(root, "theirs", lambda rows: rows.append({**rows[0], "model_id": 9} | fresh(9)))
    assert merge(root) == 1
    assert ".merged.merging holds the beginning of another merge" in capsys.readouterr().err


def test_links_take_no_space_and_only_where_nobody_else_reads(root):
    open_to_all = model(root / "theirs", 3) / "model.pt"
    open_to_all.chmod(0o644)
    before = contents(root / "ours", root / "theirs")
    assert merge(root, "--link") == 0
    assert contents(root / "ours", root / "theirs") == before
    for i, name in ((0, "ours"), (3, "theirs")):
        one, other = model(root / name, i) / "model.pt", model(root / "merged", i) / "model.pt"
        assert one.samefile(other) is (name == "ours")
        assert stat.S_IMODE(other.stat().st_mode) == 0o600
    assert fleet_states(root / "merged", verify=True)[0].state == "finished"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("merge ours --out merged", 2, "Name two folders or more"),
        ("merge ours theirs", 2, "Give --out, the new folder"),
        ("merge ours theirs --out merged --models 0", 2, "trains nothing: leave --models out"),
        ("merge ours ./ours --out merged", 1, "ours is named twice"),
        ("merge ours theirs --out ours/merged", 1, "lie in each other: choose another --out"),
        ("merge ours theirs --out .", 1, "lie in each other"),
        ("merge ours theirs --out full", 1, "full exists already, and a merge never changes"),
        ("merge ours nowhere --out merged", 1, "There is no fleet in nowhere: name a folder"),
        ("merge ours theirs --out merged --scenario digits_lo", 1, "no fleet of digits_lo in ours"),
        (f"{SCENARIO} --out x --link", 2, "--scenario and --link are for `mico fleet merge"),
        ("status ours theirs", 2, "takes one DIR"),
    ],
)
def test_mistakes_are_sentences(root, capsys, monkeypatch, words, code, sentence):
    monkeypatch.chdir(root)
    (root / "full").mkdir()
    (root / "full" / "file").touch()
    before = contents(root)
    assert main(["fleet", *words.split()]) == code
    assert sentence in capsys.readouterr().err
    assert contents(root) == before


def test_a_disk_without_room_is_noticed_before_anything_is_written(root, capsys, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    assert "give --link if the parts are on that disk" in refusal(root, capsys)


def test_folders_may_follow_flags(root):
    out = str(root / "merged")
    assert main(["fleet", "merge", "--out", out, str(root / "ours"), str(root / "theirs")]) == 0
    assert main(["fleet", "status", "--verify", out]) == 0
