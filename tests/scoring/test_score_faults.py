"""The faults of a submission, and of the truth, as `score.py IN OUT` lists them."""

import os
import shutil
import sys

import pytest
from helpers_score_program import faults_of
from helpers_scoring import NUM_POINTS, Competition, write_line
from mico_competition.scoring import program
from mico_competition.scoring.reading import check_predictions, in_ranges


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)


def test_199_and_201_predictions_are_refused(competition, capsys):
    values = competition.read(competition.prediction())
    write_line(competition.prediction(i=100), values[:-1])
    write_line(competition.prediction(i=101), [*values, 0.5])
    short, long = faults_of(competition, capsys)
    where = "cifar10/cifar10_hi/dev/model_"
    assert f"{where}100/prediction.csv holds {NUM_POINTS - 1} values" in short
    assert f"{where}101/prediction.csv holds {NUM_POINTS + 1} values" in long
    assert f"expected one line of {NUM_POINTS} comma-separated numbers in [0, 1]" in short


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n", "is empty"),
        (b"\xff\xfe0\x00", "is not text in UTF-8"),
        (b"0.5\n" * NUM_POINTS, f"holds {NUM_POINTS} lines"),
        (b"0.5," * 1_000_000, "is larger than"),
        (b"0.5," * (NUM_POINTS - 1) + b"nan", "must be finite, got 'nan'"),
        (b"-Infinity," + b"0.5," * (NUM_POINTS - 1), "value 1 must be finite"),
        (b"0.5," * (NUM_POINTS - 1) + b"1.001", f"value {NUM_POINTS} must be between 0 and 1"),
        (
            b"-0.1," * NUM_POINTS,
            f"must be between 0 and 1, got '-0.1' (and {NUM_POINTS - 1}",
        ),
        (b"1e999," * NUM_POINTS, "must be between 0 and 1"),
        (b"0.5;" * NUM_POINTS, "must be a number"),
        (b"0.5," * (NUM_POINTS - 1) + b"1_0", "must be a number, got '1_0'"),
        (b"0.5," * (NUM_POINTS - 1) + "\u0661".encode(), r"must be a number, got '\u0661'"),
        (b"0.5,," * (NUM_POINTS // 2), "must be a number, got ''"),
        (b"0.5," * (NUM_POINTS - 1) + b"\x1b[31mred", r"got '\x1b[31mred'"),
        (b"0." + b"5" * 900_000 + b",0" * (NUM_POINTS - 1), "must be a number"),
    ],
)
def test_faulty_content_is_named(competition, capsys, content, words):
    competition.prediction().write_bytes(content)
    faults = faults_of(competition, capsys)
    assert words in "\n".join(faults)
    for fault in faults:
        assert fault.startswith("- cifar10/cifar10_hi/dev/model_100/prediction.csv")
        assert "expected one line of" in fault and len(fault) < 300 and fault.isascii()


def test_all_faults_are_listed_at_once(competition, capsys):
    competition.prediction("cifar10_hi", 99).unlink()
    competition.prediction("cifar10_hi", 100).rename(
        competition.prediction("cifar10_hi", 100).with_name("predictions.csv")
    )
    shutil.rmtree(competition.prediction("cifar10_inf", 101).parent)
    shutil.rmtree(competition.res / "cifar10_lo")
    shutil.copytree(competition.res / "cifar10_hi", competition.res / "cifar10_new")
    write_line(competition.prediction("cifar10_inf", 7), [0.5])
    bad = ["x", "nan", "2"] + ["0.5"] * NUM_POINTS
    write_line(competition.prediction("cifar10_inf", 100), bad)
    faults = faults_of(competition, capsys)
    expected = (
        "cifar10: unexpected scenario folder 'cifar10_new'",
        "cifar10_hi/dev/model_99/prediction.csv is missing",
        "cifar10_hi/dev/model_100/prediction.csv is missing; expected a file of that name "
        f"with {NUM_POINTS} values, found 'predictions.csv'",
        "cifar10/cifar10_lo is missing or not a folder; expected a folder that holds dev",
        "cifar10_inf/dev: unexpected model folder 'model_7'",
        "cifar10_inf/dev/model_101/prediction.csv is missing",
        f"cifar10_inf/dev/model_100/prediction.csv holds {len(bad)} values",
        "cifar10_inf/dev/model_100/prediction.csv: value 1 must be a number",
        "cifar10_inf/dev/model_100/prediction.csv: value 2 must be finite",
        "cifar10_inf/dev/model_100/prediction.csv: value 3 must be between",
    )
    for words in expected:
        assert sum(words in fault for fault in faults) == 1, words
    assert len(faults) == len(expected)


def test_a_wrong_challenge_folder_is_named(competition, capsys):
    competition.res.rename(competition.res.with_name("CIFAR"))
    extra, missing = faults_of(competition, capsys)
    assert extra.endswith("unexpected challenge folder 'CIFAR'; expected only cifar10 at its top.")
    assert "cifar10 is missing" in missing


def test_an_absent_submission_is_one_fault(competition, capsys):
    shutil.rmtree(competition.res.parent)
    (fault,) = faults_of(competition, capsys)
    assert "the submission is missing" in fault


def test_the_list_of_faults_is_bounded(competition, capsys):
    for i in range(200, 300):
        (competition.res / "cifar10_hi" / "dev" / f"model_{i}").mkdir()
    faults = faults_of(competition, capsys)
    assert len(faults) == program.MAX_FAULTS + 1 and faults[-1] == "... and 50 more"


def test_names_of_the_submission_cannot_write_to_the_log(competition, capsys):
    (competition.res / ("a\n\x1b[2J" + "b" * 200)).mkdir()
    (fault,) = faults_of(competition, capsys)
    assert r"'a\n\x1b[2Jbbb" in fault and len(fault) < 250


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and named pipes")
def test_links_and_pipes_are_not_read(competition, capsys):
    link, pipe, folder = (competition.prediction(i=i) for i in (99, 100, 101))
    for path in (link, pipe, folder):
        path.unlink()
    link.symlink_to(competition.solution(i=99))
    os.mkfifo(pipe)
    folder.mkdir()
    faults = faults_of(competition, capsys)
    assert len(faults) == 3
    assert all("is not a regular file; links and folders are not read" in f for f in faults)


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_to_a_folder_is_not_followed(competition, capsys):
    scenario = competition.res / "cifar10_lo"
    scenario.rename(competition.inputs / "elsewhere")
    scenario.symlink_to(competition.inputs / "elsewhere", target_is_directory=True)
    (fault,) = faults_of(competition, capsys)
    assert "cifar10/cifar10_lo is missing or not a folder" in fault


def test_markup_in_a_submission_is_text_on_the_page(competition, capsys):
    (competition.res / "<img src=x onerror=alert(1)>").mkdir()
    competition.prediction().write_text("<script>alert(2)</script>")
    assert len(faults_of(competition, capsys)) == 3
    page = (competition.outputs / program.PAGE).read_text()
    assert "<img" not in page and "alert(2)</script>" not in page
    assert "&lt;script&gt;alert(2)" in page


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: shutil.rmtree(c.ref.parent), "ref: expected 1 challenge folder(s), found 0"),
        (
            lambda c: [(c.ref / f"cifar10_{i}").mkdir() for i in range(18)],
            "expected 1 to 20 scenario folder(s), found 21",
        ),
        (lambda c: (c.ref.parent / "sst2").mkdir(), "expected 1 challenge folder(s), found 2"),
        (lambda c: (c.ref / "cifar10_hi" / "final").mkdir(), "1 phase folder(s), found 2"),
        (lambda c: (c.ref / "cifar10_hi" / "dev").rename(c.ref / "cifar10_hi" / "final"), "phase"),
        (lambda c: c.solution().unlink(), "solution.csv cannot be used"),
        (lambda c: c.solution().write_text("0,1,2"), "solution.csv cannot be used"),
        (lambda c: c.solution().write_text("\n"), "solution.csv cannot be used"),
        (
            lambda c: [write_line(c.solution(i=i), [1] * NUM_POINTS) for i in (99, 100, 101)],
            "cifar10_hi cannot be scored; expected members and non-members",
        ),
    ],
)
def test_damaged_truth_is_the_organisers_fault(competition, capsys, damage, words):
    damage(competition)
    faults = faults_of(competition, capsys)
    assert words in "\n".join(faults)


def test_check_predictions_returns_values_and_faults(competition):
    expected = {
        f"cifar10/cifar10_hi/{phase}/model_{i}": NUM_POINTS
        for phase, i in (("dev", 99), ("dev", 100), ("dev", 101), ("final", 150), ("final", 151))
    }
    shutil.rmtree(competition.res / "cifar10_inf")
    shutil.rmtree(competition.res / "cifar10_lo")
    values, faults = check_predictions(str(competition.res.parent), expected)
    assert faults == [] and sorted(values) == sorted(expected)
    competition.prediction(i=150, phase="final").write_text("0.5")
    values, faults = check_predictions(str(competition.res.parent), expected)
    assert len(faults) == 1 and len(values) == len(expected) - 1


def test_missing_predictions_are_told_in_ranges(competition, capsys):
    for i in (99, 100, 101):
        shutil.rmtree(competition.prediction("cifar10_hi", i).parent)
    competition.prediction("cifar10_inf", 99).unlink()
    competition.prediction("cifar10_inf", 101).unlink()
    hi, first, last = faults_of(competition, capsys)
    start = "- cifar10/cifar10_hi/dev/model_99 to model_101 (3 models)/prediction.csv is missing;"
    assert hi.startswith(start) and f"one line of {NUM_POINTS} comma" in hi
    assert "model_99/prediction.csv is missing" in first
    assert "model_101/prediction.csv is missing" in last


def test_a_range_holds_neighbours_of_one_folder_and_one_text_only():
    end = "/prediction.csv is missing; expected one line of %d comma-separated numbers in [0, 1]."
    lines = [f"c/s/dev/model_{i}" + end % 20 for i in (1, 2, 4, 5, 6)]
    lines += [f"c/s/dev/model_{i}" + end % 30 for i in (7, 8)]
    lines += [f"c/t/dev/model_{i}" + end % 30 for i in (9, 10)]
    lines += ["c/t/dev/model_11/prediction.csv is empty; x", "other"]
    found = [line.partition("/prediction")[0] for line in in_ranges(lines)]
    assert found == [
        "c/s/dev/model_1 to model_2 (2 models)",
        "c/s/dev/model_4 to model_6 (3 models)",
        "c/s/dev/model_7 to model_8 (2 models)",
        "c/t/dev/model_9 to model_10 (2 models)",
        "c/t/dev/model_11",
        "other",
    ]
    assert in_ranges([]) == [] and in_ranges(["x"]) == ["x"]
