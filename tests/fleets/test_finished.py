"""A model that was finished and is not what it was any more is noticed, by everybody."""

import json
import os
import re
import shutil

import pytest
import torch

from mico_competition.cli import main
from mico_competition.fleets import finished
from mico_competition.fleets.finished import damage
from mico_competition.fleets.ledger import Ledger, append_line
from mico_competition.fleets.status import fleet_states

SCENARIO = "digits_inf"


def fleet(out, models="0-5"):
    flags = ["--threads", "1", "--workers", "1", "--num_epochs", "1"]
    return main(["fleet", SCENARIO, "--models", models, "--out", str(out), *flags])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished fleet of six models; read-only."""
    out = tmp_path_factory.mktemp("done")
    assert fleet(out) == 0
    return out


@pytest.fixture
def out(done, tmp_path):
    """A copy of it, with all times."""
    return shutil.copytree(done, tmp_path / "out")


def model(out, i):
    return out / "digits" / SCENARIO / "train" / f"model_{i}"


def same_size_and_time(path):
    """Another byte in the middle, as a disk that fails gives it."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


DAMAGE = {
    "model.pt is empty": lambda f: (f / "model.pt").write_bytes(b""),
    "model.pt has 1000 bytes": lambda f: (f / "model.pt").write_bytes(
        (f / "model.pt").read_bytes()[:1000]
    ),
    "model.pt is missing": lambda f: (f / "model.pt").unlink(),
    "solution.csv is missing": lambda f: (f / "solution.csv").unlink(),
    "seed_membership is empty": lambda f: (f / "seed_membership").write_text(""),
    "metadata.json has": lambda f: (f / "metadata.json").write_text("{}"),
    "solution.csv has other content": lambda f: (f / "solution.csv").write_text(
        (f / "solution.csv").read_text()[::-1].strip() + "\n"
    ),
}


@pytest.mark.slow
def test_a_finished_fleet_is_finished(done, capsys):
    (state,) = fleet_states(done)
    assert (state.state, state.done, state.damaged) == ("finished", 6, {})
    assert main(["fleet", "status", str(done), "--verify"]) == 0
    printed = capsys.readouterr()
    assert " finished " in printed.out and not printed.err
    private = (done / "fleet" / SCENARIO / "files.jsonl").stat().st_mode
    assert private & 0o077 == 0


@pytest.mark.parametrize("fault", DAMAGE)
def test_damage_is_noticed_by_status_fleet_and_release(out, capsys, fault):
    DAMAGE[fault](model(out, 1))
    DAMAGE[fault](model(out, 4))
    (state,) = fleet_states(out)
    assert state.state == "damaged" and state.done == 4 and state.left == 2
    assert list(state.damaged) == [1, 4] and fault in state.damaged[1]
    assert main(["fleet", "status", str(out)]) == 1
    assert f"model_4: {fault}" in capsys.readouterr().err
    before = sorted(out.rglob("*"))
    assert fleet(out, "0-6") == 1
    error = capsys.readouterr().err
    assert f"model_1: {fault}" in error and f"model_4: {fault}" in error
    assert "move the folders away and run the fleet again" in error
    assert [p for p in sorted(out.rglob("*")) if p not in before] == []  # nothing was begun
    assert main(["release", str(out), "--to", str(out.parent / "released")]) == 1
    error = capsys.readouterr().err
    assert f"model_1: {fault}" in error and f"model_4: {fault}" in error


def test_what_a_failing_disk_changed_is_found_by_hash(out, capsys):
    same_size_and_time(model(out, 2) / "model.pt")
    assert fleet_states(out)[0].damaged == {}  # a look at sizes and times does not see it
    assert fleet_states(out, verify=True)[0].damaged == {2: "model.pt has other content"}
    assert main(["fleet", "status", str(out), "--verify"]) == 1
    assert fleet(out) == 1
    assert "model_2: model.pt has other content" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_that_is_moved_away_is_trained_again(out, tmp_path, capsys):
    weights = (model(out, 3) / "model.pt").read_bytes()
    DAMAGE["model.pt is empty"](model(out, 3))
    assert fleet(out) == 1
    model(out, 3).rename(tmp_path / "kept")
    assert fleet(out) == 0
    assert (model(out, 3) / "model.pt").stat().st_size == len(weights)
    assert fleet_states(out, verify=True)[0].state == "finished"


def test_a_copied_fleet_with_new_times_and_further_files_is_whole(out):
    for path in out.rglob("*"):
        os.utime(path, (1, 1))
    (model(out, 0) / "prediction.csv").write_text("0.5\n")
    assert fleet_states(out)[0].state == "finished"


def test_a_copy_is_hashed_once(out, monkeypatch):
    """Status hashes files whose times have changed; the next run writes the new times down."""
    for path in model(out, 2).iterdir():
        os.utime(path, (1, 1))
    hashed = []
    original = finished._sha256

    def watched(path):
        hashed.append(path)
        return original(path)

    monkeypatch.setattr(finished, "_sha256", watched)
    assert fleet_states(out)[0].state == "finished" and len(hashed) >= 5
    assert fleet(out) == 0
    hashed.clear()
    assert fleet_states(out)[0].state == "finished" and not hashed


def without(path, ids, *, end=False):
    """Take lines of models out of files.jsonl or events.jsonl, and that the run ended."""
    kept = []
    for line in path.read_text().splitlines(True):
        row = json.loads(line)
        if row.get("model_id") not in ids and not (end and row.get("event") == "end"):
            kept.append(line)
    path.write_text("".join(kept))


def killed(out, ids):
    """As a fleet is that was killed between models and their lines."""
    folder = out / "fleet" / SCENARIO
    without(folder / "files.jsonl", ids)
    without(folder / "events.jsonl", ids, end=True)
    return folder / "files.jsonl"


def ids_in(files):
    return sorted(json.loads(line)["model_id"] for line in files.read_text().splitlines())


def contents(out):
    return {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_models_that_were_not_written_down_yet_are_looked_at_too(out, capsys):
    files = killed(out, {2, 4, 5})
    cut = model(out, 5) / "model.pt"
    cut.write_bytes(cut.read_bytes()[:-5000])
    shutil.copyfile(model(out, 1) / "model.pt", model(out, 2) / "model.pt")
    assert fleet_states(out)[0].damaged == {}
    found = fleet_states(out, verify=True)[0].damaged
    assert found[2] == "model.pt is that of model_1" and list(found) == [2, 5]
    assert ids_in(files) == [0, 1, 3]  # who looks writes nothing
    assert fleet(out) == 1
    error = capsys.readouterr().err
    assert "model_2: model.pt is that of model_1" in error and "model_5: " in error
    assert ids_in(files) == [0, 1, 3, 4]


def test_a_run_of_other_models_writes_them_down_too(out, capsys):
    files = killed(out, {1})
    assert fleet(out, "6") == 0, capsys.readouterr().err
    assert {1, 6} <= set(ids_in(files))
    (state,) = fleet_states(out, verify=True)
    assert not state.damaged


def zeros(path):
    state = torch.load(path, weights_only=True)
    torch.save({name: torch.zeros_like(value) for name, value in state.items()}, path)


def test_constant_weights_that_were_not_written_down_are_seen(out):
    killed(out, {3})
    zeros(model(out, 3) / "model.pt")
    found = fleet_states(out, verify=True)[0].damaged
    assert found == {3: "all 16384 values of mlp.0.weight are 0"}


def removed(out):
    (out / "fleet" / SCENARIO / "files.jsonl").unlink()
    return range(6)


def emptied(out):
    (out / "fleet" / SCENARIO / "files.jsonl").write_text("")
    return range(6)


def two_lines(out):
    without(out / "fleet" / SCENARIO / "files.jsonl", {0, 4})
    return [0, 4]


def events_too(out):
    (out / "fleet" / SCENARIO / "events.jsonl").unlink()
    return removed(out)


def lines_of_both(out):
    """Nothing says that two models were done, but the run ended by itself."""
    for name in ("files.jsonl", "events.jsonl"):
        without(out / "fleet" / SCENARIO / name, {0, 4})
    return [0, 4]


def more_than_were_under_way(out):
    events = out / "fleet" / SCENARIO / "events.jsonl"
    killed(out, set(range(6)))
    events.write_text(events.read_text().replace('"at_once": 6', '"at_once": 2'))
    return range(6)


@pytest.mark.parametrize(
    "lose", [removed, emptied, two_lines, events_too, lines_of_both, more_than_were_under_way]
)
def test_losing_what_was_written_down_is_damage(out, capsys, lose):
    shutil.copyfile(model(out, 1) / "model.pt", model(out, 0) / "model.pt")
    ids, before = list(lose(out)), contents(out)
    for verify in (False, True):
        (state,) = fleet_states(out, verify=verify)
        assert state.state == "damaged" and list(state.damaged) == ids
        assert "its line in files.jsonl is lost" in state.damaged[0]
    assert main(["fleet", "status", str(out), "--verify"]) == 1
    assert "put back a copy of files.jsonl" in capsys.readouterr().err
    assert main(["release", str(out), "--to", str(out.parent / "released")]) == 1
    assert fleet(out, "0-6") == 1
    assert "model_0: its line in files.jsonl is lost" in capsys.readouterr().err
    after = contents(out)
    assert {path: after[path] for path in before} == before


def test_status_writes_nothing(out):
    for path in model(out, 2).iterdir():
        os.utime(path, (1, 1))
    killed(out, {3})
    before = contents(out)
    assert main(["fleet", "status", str(out), "--verify"]) == 0
    assert contents(out) == before


def bare(out):
    """The models without the fleet's files."""
    shutil.rmtree(out / "fleet")


def same_weights(out):
    """A twin, in bytes of its own."""
    state = torch.load(model(out, 1) / "model.pt", weights_only=True)
    state = {f"_module.{name}": value for name, value in reversed(state.items())}
    torch.save(state, model(out, 0) / "model.pt")


def not_finite(out):
    state = torch.load(model(out, 0) / "model.pt", weights_only=True)
    state["mlp.0.bias"][3] = float("nan")
    torch.save(state, model(out, 0) / "model.pt")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (same_weights, r"model_1/model.pt has the same weights as .*model_0: one of them is a c"),
        (lambda out: zeros(model(out, 0) / "model.pt"), "16384 values of mlp.0.weight are 0"),
        (not_finite, "has weights that are not finite"),
    ],
)
def test_no_twins_and_no_constant_weights_are_released(out, tmp_path, capsys, change, sentence):
    bare(out)
    change(out)
    assert main(["release", str(out), "--to", str(tmp_path / "released")]) == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "released" / "digits").exists()


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "lines"
    append_line(path, '{"a": 1}')
    with open(path, "a") as file:
        file.write('{"b": ')
    append_line(path, '{"c": 3}')
    assert path.read_text().splitlines() == ['{"a": 1}', '{"b": ', '{"c": 3}']


@pytest.mark.parametrize(
    "line",
    ["", "{", "null", "[]", '{"model_id": 1}', '{"model_id": 1, "files": 3}', "[" * 100_000],
)
def test_odd_lines_of_it_count_as_none(out, line):
    append_line(out / "fleet" / SCENARIO / "files.jsonl", line)
    ledger = Ledger.read(out, SCENARIO)
    assert damage(ledger, verify=True) == {}


@pytest.mark.slow
def test_many_fleets_of_a_challenge_are_listed_together(out, capsys):
    flags = ["--threads", "1", "--workers", "1", "--num_epochs", "1", "--models", "0"]
    assert main(["fleet", "digits_lo", "--out", str(out), *flags]) == 0
    (out / "digits/digits_lo/train/model_0/model.pt").write_bytes(b"")
    DAMAGE["model.pt is missing"](model(out, 2))
    with pytest.raises(ValueError) as caught:
        finished.check_fleets(out, "digits")
    assert str(caught.value).splitlines()[1:] == [
        "  digits_inf/model_2: model.pt is missing",
        "  digits_lo/model_0: model.pt is empty",
    ]
