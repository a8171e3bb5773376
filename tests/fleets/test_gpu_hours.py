"""benchmarks/gpu_hours.py, tried on the CPU: all kinds of models, and what is cut."""

import json

import pytest
from helpers_models import TINY
from helpers_scripts import script_of

from mico_competition.competition.table import SCENARIOS, get_scenario


@pytest.fixture(scope="module")
def script():
    with script_of("gpu_hours") as module:
        yield module


def run(script, out, *arguments):
    """The JSON that the script writes for a few records on the CPU."""
    tiny = ["--records", "40", "--seconds", "0", "--stack", "2", "--base", json.dumps(TINY)]
    script.main(["--out", str(out), "--device", "cpu", *tiny, *arguments])
    return json.loads(out.read_text())


def test_all_scenarios_of_2022_are_measured(script):
    of_2022 = {name for name in SCENARIOS if get_scenario(name).task in script.TASKS}
    assert set(script.scenarios()) == of_2022 and len(of_2022) == 12
    assert {name.split("_")[0] for name in script.scenarios()[:3]} == set(script.TASKS)


def test_sentences_are_as_long_as_those_of_sst2(script):
    lengths = script.sentences(5000, 67, 300).attention_mask.sum(1).float()
    assert 11 < float(lengths.mean()) < 14 and lengths.min() >= 3 and lengths.max() <= 67


@pytest.mark.slow
def test_models_of_each_task_are_tried(script, tmp_path, capsys):
    pytest.importorskip("transformers")
    names = ["purchase100_lo", "cifar10_inf", "sst2_lo"]
    found = run(script, tmp_path / "hours.json", "--scenarios", *names)
    assert not found["failed"]
    rows = {row["scenario"]: row for row in found["scenarios"]}
    assert list(rows) == names
    assert [row["stack"] for row in rows.values()] == [2, 1, 1]
    for row in rows.values():
        steps = row["steps"] * row["step_seconds"] + row["begin_seconds"]
        assert row["models"] == 200 and row["hours"] * 3600 >= 200 / row["stack"] * steps * 0.999
    said = capsys.readouterr().out
    total = sum(row["hours"] for row in rows.values())
    assert f"600 of 2,400 models take {total:.1f} hours" in said


def test_no_trial_begins_when_the_time_is_over(script, tmp_path, capsys):
    script.main(["--minutes", "-1", "--out", str(tmp_path / "hours.json"), "--device", "cpu"])
    assert "are left out" in capsys.readouterr().out


def test_a_scenario_that_fails_leaves_the_others(script, tmp_path, monkeypatch):
    def measure(name, *args, **options):
        if name == "cifar10_lo":
            raise RuntimeError("out of memory")
        row = dict.fromkeys(("step_seconds", "hours", "memory"), 1.0)
        return {"scenario": name, "models": 200, "stack": 1, "kilowatt_hours": None, **row}

    monkeypatch.setattr(script, "measure", measure)
    found = run(script, tmp_path / "hours.json", "--scenarios", "cifar10_lo", "sst2_lo")
    assert found["failed"] == {"cifar10_lo": "RuntimeError: out of memory"}
    assert [row["scenario"] for row in found["scenarios"]] == ["sst2_lo"]
