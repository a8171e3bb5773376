"""Bundles: complete, from the table, the same bytes every time, and without the truth of Final."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers_bundle import (
    DATES,
    MODELS,
    SCHEDULE,
    make_bundle,
    read_zip,
    spec_of,
    write_trained,
    zipped,
)
from mico_competition.scoring.metrics import SCALARS

from mico_competition.cli import main
from mico_competition.competition.table import CHALLENGES, SCENARIOS
from mico_competition.hosting.codabench.bundle import write_bundle, write_final_reference
from mico_competition.hosting.codabench.check import check_bundle
from mico_competition.hosting.codabench.facts import METRICS, Facts, Schedule, parse_date
from mico_competition.hosting.codabench.options import Options

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("overview", "evaluation", "data", "terms")


@pytest.mark.parametrize("challenge", CHALLENGES)
@pytest.mark.parametrize("platform", ["codabench", "codalab"])
def test_every_challenge_makes_a_bundle_without_a_fault(bundles, challenge, platform):
    path = bundles(challenge, platform)
    assert check_bundle(path) == []
    files = read_zip(path)
    kind = "md" if platform == "codabench" else "html"
    assert set(files) == {
        *("competition.yaml", "logo.png", "scoring_program.zip"),
        *("reference_data_dev.zip", "reference_data_final.zip"),
        *(f"pages/{page}.{kind}" for page in PAGES),
    }


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_codabenchs_form(bundles, challenge):
    spec = spec_of(read_zip(bundles(challenge)))
    assert spec["version"] == 2 and spec["enable_detailed_results"] is True
    assert spec["docker_image"] == "codalab/codalab-legacy:py312"
    dev, final = spec["phases"]
    assert [dev["tasks"], final["tasks"]] == [[0], [1]]
    assert (dev["start"], dev["end"]) == (DATES[0], "2027-03-01 11:59:00")
    assert (final["start"], final["end"]) == DATES[1:]
    assert "auto_migrate_to_this_phase" not in dev and final["auto_migrate_to_this_phase"]
    assert all(final[f"hide_{name}output"] for name in ("", "prediction_", "score_"))
    (board,) = spec["leaderboards"]
    assert board["submission_rule"] == "Force_Last" and "primary_index" not in board
    columns = board["columns"]
    assert [column["index"] for column in columns] == list(range(19))
    assert columns[0]["key"] == "average_TPR_FPR_1000"
    assert all(len(column["title"]) <= 36 for column in columns)
    for i, name in enumerate(CHALLENGES[challenge], start=1):
        mine = [column for column in columns if column["key"].startswith(f"scenario{i}_")]
        assert [c["key"] for c in mine] == [f"scenario{i}_{metric}" for metric in METRICS]
        assert all(c["title"].startswith(f"{SCENARIOS[name].label}: ") for c in mine)
    assert set(METRICS) <= set(SCALARS)


def test_titles_of_columns(bundles):
    columns = spec_of(read_zip(bundles("cifar10")))["leaderboards"][0]["columns"]
    assert [column["title"] for column in columns[:8]] == [
        "Average TPR at 10% FPR",
        "No DP: TPR at 10% FPR",
        "No DP: TPR at 1% FPR",
        "No DP: TPR at 0.1% FPR",
        "No DP: AUC",
        "No DP: Advantage",
        "No DP: Balanced accuracy",
        "High ε = 10: TPR at 10% FPR",
    ]
    keys = [column["key"].partition("_")[0] for column in columns]
    assert keys == ["average", *["scenario2"] * 6, *["scenario1"] * 6, *["scenario3"] * 6]


def test_codalabs_form(bundles):
    """No key that legacy CodaLab does not know, `version` among them."""
    spec = spec_of(read_zip(bundles("ddp", "codalab")))
    assert "version" not in spec and set(spec["html"]) == set(PAGES)
    first, second = spec["phases"].values()
    assert (first["start_date"], second["start_date"], spec["end_date"]) == DATES
    assert second["auto_migration"] and second["leaderboard_management_mode"] == "hide_results"
    board = spec["leaderboard"]
    assert len(board["columns"]) == 19 and len(board["column_groups"]) == 4
    labels = {group["label"] for group in board["column_groups"].values()}
    assert {column["column_group"]["label"] for column in board["columns"].values()} == labels
    assert {column["leaderboard"]["label"] for column in board["columns"].values()} == {"Results"}


def test_codabench_reads_codalabs_form_with_warnings_only(bundles):
    faults = check_bundle(bundles("cifar10", "codalab"), "codabench")
    assert faults and all(fault.severity == "warning" for fault in faults)


def test_dates_are_quoted(bundles):
    for platform in ("codabench", "codalab"):
        text = read_zip(bundles("cifar10", platform))["competition.yaml"].decode()
        for date in DATES:
            assert f"'{date}'" in text


def test_the_same_input_gives_the_same_bytes(tmp_path):
    one, root = make_bundle(tmp_path / "one")
    (tmp_path / "two").mkdir()
    other = write_trained(tmp_path / "elsewhere" / "trained", "digits")
    write_bundle(other, "digits", tmp_path / "two" / "b.zip", SCHEDULE)
    assert one.read_bytes() == (tmp_path / "two" / "b.zip").read_bytes()
    write_final_reference(root, "digits", tmp_path / "final_1.zip")
    write_final_reference(other, "digits", tmp_path / "final_2.zip")
    assert (tmp_path / "final_1.zip").read_bytes() == (tmp_path / "final_2.zip").read_bytes()


def test_the_truth_of_final_is_neither_in_it_nor_opened(tmp_path):
    path, root = make_bundle(tmp_path)
    secrets = [p.read_bytes().strip() for p in root.glob("*/*/final/*/solution.csv")]
    content = path.read_bytes()
    assert len(secrets) == 3 * MODELS and not any(secret in content for secret in secrets)
    reference = read_zip(read_zip(path)["reference_data_final.zip"])
    assert list(reference) == ["not_open_yet.txt"]
    assert b"Final is not open yet" in reference["not_open_yet.txt"]
    for solution in root.glob("*/*/final/*/solution.csv"):
        solution.unlink()
    write_bundle(root, "digits", tmp_path / "again.zip", SCHEDULE)
    assert (tmp_path / "again.zip").read_bytes() == content


def test_the_truth_of_dev_and_the_file_to_swap_in(tmp_path):
    path, root = make_bundle(tmp_path)
    assert write_final_reference(root, "digits", tmp_path / "final.zip") == 3 * MODELS
    for phase, source in (
        ("dev", read_zip(read_zip(path)["reference_data_dev.zip"])),
        ("final", read_zip(tmp_path / "final.zip")),
    ):
        expected = {
            p.relative_to(root).as_posix(): p.read_bytes()
            for p in root.glob(f"*/*/{phase}/*/solution.csv")
        }
        assert source == expected


def test_the_program_in_it_is_that_of_this_repository(bundles, tmp_path):
    files = read_zip(read_zip(bundles("sst2"))["scoring_program.zip"])
    assert files["metadata"] == (ROOT / "scoring" / "metadata").read_bytes()
    assert {p.name for p in (ROOT / "scoring").glob("*.py")} <= set(files)
    assert not any("pycache" in name or name.startswith("test") for name in files)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    called = subprocess.run([sys.executable, tmp_path / "score.py"], capture_output=True, text=True)
    assert called.returncode == 2 and "usage" in called.stderr


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (("2027-01-01", *DATES[1:]), "Expected dev_start as"),
        (("2027-01-01 00:00:00+02:00", *DATES[1:]), "without an offset"),
        ((DATES[0], "2027-02-30 00:00:00", DATES[2]), "Expected final_start as"),
        ((DATES[0], "1 March 2027", DATES[2]), "Expected final_start as"),
        ((*DATES[:2], "2027-03-15T18:30:00"), "Expected end as"),
        ((DATES[1], DATES[0], DATES[2]), "more than a minute after dev_start"),
        ((DATES[0], "2027-01-01 00:01:00", DATES[2]), "more than a minute after dev_start"),
        ((*DATES[:2], DATES[1]), "to be after final_start"),
    ],
)
def test_dates_that_are_refused(dates, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Schedule.of(*dates)


def remove(path):
    def change(root):
        for file in sorted((root / path).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (root / path).rmdir()

    return change


def write(path, text):
    return lambda root: (root / path).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("digits"), "name the folder that `mico train --output_dir` was given"),
        (remove("digits/digits_lo"), "as many dev models in each scenario"),
        (remove("digits/digits_lo/final/model_151"), "digits_hi 2, digits_inf 2, digits_lo 1"),
        (write("digits/digits_hi/dev/model_100/metadata.json", "{}"), "differ in N, n or m"),
        (write("digits/digits_hi/dev/model_100/solution.csv", "1,0,2\n"), "each 0 or 1"),
        (write("digits/digits_hi/dev/model_100/solution.csv", "1,0\n"), "one line of"),
        (
            lambda root: (root / "digits/digits_hi/dev/model_100/solution.csv").unlink(),
            "There is no solution.csv in",
        ),
        (
            lambda root: (root / "digits/digits_hi/dev/model_100").rename(
                root / "digits/digits_hi/dev/model_7"
            ),
            "model_7 lies in phase dev, which has the models 100 to 149",
        ),
    ],
)
def test_models_that_are_not_all_there(tmp_path, change, message):
    root = write_trained(tmp_path / "trained", "digits")
    change(root)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        write_bundle(root, "digits", tmp_path / "bundle.zip", SCHEDULE)
    assert "1,0" not in str(raised.value)
    assert not (tmp_path / "bundle.zip").exists()


def test_a_missing_solution_of_final_is_told_when_it_is_needed(tmp_path):
    root = write_trained(tmp_path / "trained", "digits")
    (root / "digits/digits_inf/final/model_150/solution.csv").unlink()
    with pytest.raises(ValueError, match=r"no solution.csv in .*model_150"):
        write_final_reference(root, "digits", tmp_path / "final.zip")
    assert not (tmp_path / "final.zip").exists()


def test_facts_without_metadata_are_those_of_the_table(tmp_path):
    root = write_trained(tmp_path, "cifar10")
    for file in root.rglob("metadata.json"):
        file.unlink()
    facts = Facts.of(root, "cifar10").scenarios[0]
    assert (facts.len_dataset, facts.len_training, facts.len_challenge) == (60000, 50000, 100)
    assert facts.epsilon == 10


def test_extras_are_with_the_first_phase(tmp_path):
    kit = tmp_path / "kit.zip"
    kit.write_bytes(zipped({"notebook.ipynb": "{}"}))
    for platform in ("codabench", "codalab"):
        folder = tmp_path / platform
        path, _ = make_bundle(folder, "digits", platform, starting_kit=kit, public_data=kit)
        files = read_zip(path)
        assert files["starting_kit.zip"] == files["public_data.zip"] == kit.read_bytes()
        phases = spec_of(files)["phases"]
        first, second = phases if platform == "codabench" else phases.values()
        assert first["starting_kit"] == "starting_kit.zip" and "starting_kit" not in second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", "is not a zip that can be read"),
        (zipped({"digits/digits_hi/final/model_150/solution.csv": "1"}), "given to participants"),
    ],
)
def test_extras_that_are_refused(tmp_path, content, message):
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        make_bundle(tmp_path, public_data=tmp_path / "data.zip")
    assert not (tmp_path / "bundle.zip").exists()


def test_a_repository_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        make_bundle(tmp_path, repo="mine")


def test_what_the_check_warns_of_is_written_all_the_same(tmp_path):
    root = write_trained(tmp_path / "trained", "digits")
    dates = Schedule.of(*DATES)
    faults = write_bundle(root, "digits", tmp_path / "b.zip", dates, Options("codalab", step=0.0))
    assert [fault.severity for fault in faults] == ["warning"]
    assert check_bundle(tmp_path / "b.zip") == faults


def test_the_command_line(tmp_path, capsys):
    root = write_trained(tmp_path / "trained", "ddp")
    out = tmp_path / "bundle.zip"
    line = [str(root), "--challenge", "ddp", "--out", str(out)]
    dates = ["--dev_start", DATES[0], "--final_start", DATES[1], "--end", DATES[2]]
    assert main(["bundle", *line]) == 2
    assert "Give --dev_start" in capsys.readouterr().err
    assert main(["bundle", *line[:3]]) == 2
    assert "Give --out" in capsys.readouterr().err
    assert main(["bundle", *line, *dates, "--docker_image", "python:3.12"]) == 0
    assert "it passes its check" in capsys.readouterr().out
    assert spec_of(read_zip(out))["docker_image"] == "python:3.12"
    assert main(["bundle", "--check", str(out)]) == 0
    assert "no faults" in capsys.readouterr().out
    assert main(["bundle", "--check", str(tmp_path / "none.zip")]) == 1
    assert "There is no file" in capsys.readouterr().err
    assert main(["bundle", *line[:-1], str(tmp_path / "final.zip"), "--final_reference"]) == 0
    assert main(["bundle", *line, *dates, "--docker_image", "x" * 129, "--replace"]) == 1
    assert "no more than 128 characters" in capsys.readouterr().err
    assert spec_of(read_zip(out))["docker_image"] == "python:3.12", "the earlier one stays"


def test_an_earlier_file_is_replaced_only_if_asked(tmp_path, capsys):
    root = write_trained(tmp_path / "trained", "digits")
    out = tmp_path / "bundle.zip"
    dates = ["--dev_start", DATES[0], "--final_start", DATES[1], "--end", DATES[2]]
    for flags in (dates, ["--final_reference"]):
        out.write_text("mine")
        line = ["bundle", str(root), "--challenge", "digits", "--out", str(out), *flags]
        assert main(line) == 1
        assert "exists already" in capsys.readouterr().err and out.read_text() == "mine"
        assert main([*line, "--replace"]) == 0
        assert out.read_bytes()[:2] == b"PK"


def test_a_schedule_in_the_past_is_refused(tmp_path, capsys):
    now = parse_date("now", "2027-02-01 00:00:00")
    assert Schedule.of(*DATES, now=now).dev_start < now  # Development may have begun
    for early in (DATES[1], "2027-03-02 00:00:00", "2040-01-01 00:00:00"):
        with pytest.raises(ValueError, match="to be in the future, and it is"):
            Schedule.of(*DATES, now=parse_date("now", early))
    root = write_trained(tmp_path / "trained", "digits")
    line = ["bundle", str(root), "--challenge", "digits", "--out", str(tmp_path / "b.zip")]
    old = ["--dev_start", "2020-01-01 00:00:00", "--end", "2999-01-01 00:00:00"]
    assert main([*line, *old, "--final_start", "2020-03-01 00:00:00"]) == 1
    assert "move the schedule" in capsys.readouterr().err and not (tmp_path / "b.zip").exists()
    assert main([*line, *old, "--final_start", "2998-03-01 00:00:00"]) == 0
    assert "Development opens in the past" in capsys.readouterr().err


def test_the_address_of_the_repository_is_on_the_page(tmp_path, capsys):
    path, root = make_bundle(tmp_path, code="https://example.org/a/repo")
    text = read_zip(path)["pages/overview.md"].decode()
    assert "a copy of [its repository](https://example.org/a/repo)" in text
    write_bundle(root, "digits", tmp_path / "none.zip", SCHEDULE)
    assert "which the organisers announce" in read_zip(tmp_path / "none.zip")[
        "pages/overview.md"
    ].decode().replace("\n", " ")
    for wrong in ("javascript:x", "ftp://x", "https://a b", "https://a)", "https://<x>", ""):
        with pytest.raises(ValueError, match="as an address"):
            write_bundle(root, "digits", tmp_path / "bad.zip", SCHEDULE, code=wrong)


def test_pages_promise_a_notebook_only_where_there_is_one(bundles):
    for challenge in CHALLENGES:
        text = read_zip(bundles(challenge))["pages/overview.md"].decode()
        notebook = f"starting-kit/{challenge}.ipynb"
        assert (notebook in text) == (ROOT / notebook).is_file(), challenge
        assert f"`mico attack {challenge}` runs" in text


def test_nothing_on_a_page_becomes_a_mail_link(bundles):
    for challenge in CHALLENGES:
        files = read_zip(bundles(challenge))
        for page in PAGES:
            assert "@" not in files[f"pages/{page}.md"].decode()
        assert "@" not in files["competition.yaml"].decode()


def test_yaml_has_no_surprises(bundles):
    """What is written is what is read: no text turns into a date or a number."""
    spec = spec_of(read_zip(bundles("purchase100")))
    assert yaml.safe_load(yaml.safe_dump(spec)) == spec
    assert all(isinstance(phase[key], str) for phase in spec["phases"] for key in ("start", "end"))
