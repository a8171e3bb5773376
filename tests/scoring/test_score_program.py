"""The platform's program `score.py IN OUT`, run as the platforms run it."""

import html
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers_scoring import (
    IMAGES,
    NUM_POINTS,
    OUTPUTS,
    SCENARIOS,
    SCORING,
    Competition,
    image_python,
    write_line,
)
from mico_competition.scoring import program, score
from mico_competition.scoring.reading import check_predictions, in_ranges, read_values

KEYS = ["AUC", "MIA", "accuracy"] + [f"TPR_FPR_{k}" for k in (10, 100, 500, 1000, 1500, 2000)]


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path)


def run_here(competition, capsys):
    """As `Competition.run`, in this process, which is faster: exit code, stdout, stderr."""
    code = program.main([str(competition.inputs), str(competition.outputs)])
    out, err = capsys.readouterr()
    return code, out, err


def faults_of(competition, capsys):
    """The faults of a run that must fail the right way."""
    code, out, err = run_here(competition, capsys)
    assert code == 1 and out == "" and competition.written() == [program.PAGE]
    assert "Traceback" not in err and "array(" not in err
    head, *faults = err.splitlines()
    assert head.startswith("Not scored:")
    check_page(competition, err)
    return faults


def check_page(competition, err):
    """The page of a refusal says what stderr says, and no more."""
    page = (competition.outputs / program.PAGE).read_text(encoding="utf-8")
    body = page.partition("<main>")[2].partition("</main>")[0]
    said = re.findall(r"<(?:p|li)>(.*?)</(?:p|li)>", body, flags=re.DOTALL)
    head, *faults = err.splitlines()
    expected = [head.replace("Not scored: ", "", 1), *(f.removeprefix("- ") for f in faults)]
    assert [html.unescape(line) for line in said] == expected
    assert "<script" not in body


def read_scores(folder):
    lines = (folder / "scores.txt").read_text().splitlines()
    return dict(line.split(": ") for line in lines)


# --- a sound submission


def check_outputs(competition):
    """OUT holds the right numbers, to the last digit, in a form that YAML reads as numbers."""
    texts = read_scores(competition.outputs)
    expected = {}
    for i, scenario in enumerate(SCENARIOS, start=1):
        result = score(*competition.pooled[scenario])
        expected.update({f"scenario{i}_{key}": result[key] for key in KEYS})
    tenth = [expected[f"scenario{i}_TPR_FPR_1000"] for i in (1, 2, 3)]
    expected["average_TPR_FPR_1000"] = np.mean(tenth)
    assert list(texts) == list(expected)
    assert all(re.fullmatch(r"[0-9]+\.[0-9]+", text) for text in texts.values())
    assert {key: float(text) for key, text in texts.items()} == expected
    assert json.loads((competition.outputs / "scores.json").read_text()) == expected
    assert competition.written() == OUTPUTS


@pytest.mark.parametrize("phase", ["dev", "final"])
def test_a_sound_submission_is_scored(tmp_path, phase):
    competition = Competition(tmp_path, phase)
    done = competition.run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(r"Scored [0-9]+ models in 3 scenarios\.\n", done.stdout)
    check_outputs(competition)
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    assert all(scenario in page for scenario in SCENARIOS)


def python_3_7():
    """The oldest of them, for other test files."""
    return image_python("3.7")


@pytest.fixture(params=IMAGES)
def image(request):
    """An interpreter of each of the platforms' images, as far as they are to be had."""
    return image_python(request.param)


@pytest.mark.slow
def test_the_platforms_pythons_give_the_same_files(tmp_path, image):
    old, new = Competition(tmp_path / "old"), Competition(tmp_path / "new")
    done = old.run(python=image, options=())
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(old)
    assert new.run().returncode == 0
    for name in OUTPUTS:
        assert (old.outputs / name).read_bytes() == (new.outputs / name).read_bytes(), name


@pytest.mark.slow
def test_the_platforms_pythons_list_the_same_faults(competition, image):
    competition.prediction(i=99).write_text("0.5,nope")
    shutil.rmtree(competition.res / "cifar10_lo")
    done = competition.run(python=image, options=())
    assert (done.returncode, done.stdout, competition.written()) == (1, "", [program.PAGE])
    assert done.stderr == competition.run().stderr and "nope" in done.stderr


@pytest.mark.slow
def test_the_program_imports_numpy_and_the_standard_library_only(competition, tmp_path):
    shadow = tmp_path / "shadow"
    for name in ("pandas", "matplotlib", "sklearn", "scipy", "torch", "mico_competition"):
        (shadow / name).mkdir(parents=True)
        (shadow / name / "__init__.py").write_text(f"raise SystemExit('imported {name}')")
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(shadow)!r})\n"
        "program = sys.argv[1]; sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_path(program, run_name='__main__')\n"
        "finally:\n"
        "    names = {name.split('.')[0] for name in sys.modules}\n"
        "    allowed = set(sys.stdlib_module_names) | {'numpy', 'mico_scoring'}\n"
        "    before = {'__main__', '__mp_main__', 'sitecustomize', 'usercustomize'}\n"
        "    found = {n for n in names - allowed - before if not n.startswith('__editable__')}\n"
        "    found = {n for n in found if n not in ('_distutils_hack', '_virtualenv')}\n"
        "    found = {n for n in found if 'cython' not in n}\n"  # of numpy.random
        "    assert not found, found\n"
    )
    done = competition.run(options=(runner,))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_folder_works_under_any_name_and_from_a_read_only_place(competition, tmp_path):
    place = tmp_path / "a program"
    place.mkdir()
    for file in SCORING.glob("*.py"):
        if file.name != "__init__.py":
            shutil.copy(file, place)
    done = competition.run(program=place / "score.py")
    assert (done.returncode, done.stderr) == (0, "")


def test_metadata_holds_the_command_that_works_on_both_platforms():
    lines = (SCORING / "metadata").read_text().splitlines()
    assert "command: python3 $program/score.py $input $output" in lines


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_call_says_how_to_call(capsys, count):
    assert program.main(["x"] * count) == 2
    assert capsys.readouterr().err.startswith("usage: score.py IN OUT")


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-5, 4e-8, 1 / 3, np.float64(2e-7), 5e-324])
def test_scores_are_plain_decimals_that_read_back(value):
    text = program.plain_decimal(value)
    assert re.fullmatch(r"[0-9]+\.[0-9]+", text) and float(text) == value


# --- what does no harm


def test_stray_files_and_other_phases_are_ignored(competition):
    res = competition.res
    (res.parent / "metadata").write_text("elapsedTime: 0.1\n")  # the worker's own
    for folder in (res.parent, res, res / "cifar10_hi", competition.prediction().parent):
        (folder / ".DS_Store").write_bytes(b"\0\1")
        (folder / "__MACOSX").mkdir()
        (folder / "._prediction.csv").write_text("x")
    for folder in (competition.ref.parent, competition.ref, competition.solution().parent):
        (folder / ".DS_Store").write_bytes(b"\0\1")
    (competition.ref.parent / "metadata").write_text("x")
    competition.prediction(phase="final", i=150).write_text("this phase is not scored")
    done = competition.run()
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(competition)


@pytest.mark.parametrize(
    "dress",
    [
        lambda line: "\ufeff" + line,
        lambda line: line + "\r\n",
        lambda line: line + ",\n",
        lambda line: "\n " + line.replace(",", " , ") + " \n\n",
        lambda line: ",".join(f"{float(x):.18e}" for x in line.split(",")),
    ],
)
def test_harmless_ways_to_write_a_line_are_read(tmp_path, dress):
    path = tmp_path / "prediction.csv"
    path.write_bytes(dress("0.25,1,0,.5,1e-3").encode())
    values, faults = read_values(str(path), 5)
    assert faults == [] and values.tolist() == [0.25, 1, 0, 0.5, 0.001]


# --- faults of the submission


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


def test_a_failed_run_leaves_no_scores_of_an_earlier_one(competition, capsys):
    assert run_here(competition, capsys)[0] == 0
    assert competition.written() == OUTPUTS
    competition.prediction().unlink()
    assert len(faults_of(competition, capsys)) == 1  # and nothing in OUT


def test_a_run_that_stops_while_writing_leaves_nothing(competition, capsys, monkeypatch):
    def fail(*args, **options):
        raise OSError("disk full, and 0,1,1,0")

    monkeypatch.setattr(program.json, "dumps", fail)
    code, out, err = run_here(competition, capsys)
    assert (code, out, competition.written()) == (1, "", [program.PAGE])
    check_page(competition, err)
    assert re.fullmatch(r"Not scored: OSError in \S+, line [0-9]+\. Please .*\n", err)


# --- the page of a refusal


def test_the_page_is_never_missing_and_never_old(competition, capsys, monkeypatch):
    """Legacy CodaLab makes an empty page before the program starts, and fails without one."""
    competition.outputs.mkdir()
    page = competition.outputs / program.PAGE
    page.touch()
    seen = []

    def watch(*args):
        seen.append(page.read_text())
        return {}, ["a fault"]

    monkeypatch.setattr(program, "check_predictions", watch)
    assert run_here(competition, capsys)[0] == 1
    assert "did not come to its end" in seen[0] and "a fault" in page.read_text()


def test_markup_in_a_submission_is_text_on_the_page(competition, capsys):
    (competition.res / "<img src=x onerror=alert(1)>").mkdir()
    competition.prediction().write_text("<script>alert(2)</script>")
    assert len(faults_of(competition, capsys)) == 3
    page = (competition.outputs / program.PAGE).read_text()
    assert "<img" not in page and "alert(2)</script>" not in page
    assert "&lt;script&gt;alert(2)" in page


def test_a_phase_that_is_not_open_says_so_on_the_page(competition, capsys):
    (competition.ref.parent / "not_open_yet.txt").write_text("Final opens\non <Monday>.\n")
    assert faults_of(competition, capsys) == []
    page = (competition.outputs / program.PAGE).read_text()
    assert "Final opens on &lt;Monday&gt;." in page


# --- the truth


def test_nothing_of_the_truth_is_printed(competition):
    marks = ("0.123456", "1,0,1,1")
    competition.solution().write_text("0.123456,1,0,1,1,oops\n")
    done = competition.run()
    assert done.returncode == 1 and competition.written() == [program.PAGE]
    assert "the competition's own data has faults (1)" in done.stderr
    assert "cifar10/cifar10_hi/dev/model_100/solution.csv cannot be used" in done.stderr
    page = (competition.outputs / program.PAGE).read_text(encoding="utf-8")
    for mark in (*marks, "oops"):
        assert mark not in done.stdout + done.stderr + page.partition("<main>")[2]


def test_no_array_is_printed_and_no_record_is_on_the_page(competition):
    done = competition.run()
    assert len(done.stdout) < 100 and "[" not in done.stdout and done.stderr == ""
    page = (competition.outputs / "detailed_results.html").read_text(encoding="utf-8")
    for path in competition.inputs.rglob("*.csv"):
        assert path.read_text().strip() not in page


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


# --- the same checks, as the package uses them before a submission is zipped


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


# --- many faults of one kind


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


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("image", IMAGES)
def test_nobody_need_read_what_it_prints(competition, image, sound):
    """As in `score.py IN OUT | true`: scores and the exit code are the same."""
    if not sound:
        competition.prediction().unlink()
    command = [image_python(image), SCORING / "score.py", competition.inputs, competition.outputs]
    reading, writing = os.pipe()
    os.close(reading)
    code = subprocess.run(command, stdout=writing, stderr=writing).returncode
    os.close(writing)
    assert code == (0 if sound else 1)
    assert competition.written() == (sorted(OUTPUTS) if sound else [program.PAGE])
