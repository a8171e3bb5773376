"""Hostile submissions: each is harmless or a line that names the file, in little memory.

The cases are in helpers_hostile.py and helpers_hostile_zips.py.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from helpers_cases import one_in
from helpers_hostile import TREES
from helpers_hostile_zips import ZIPS, copy_files, plus, zipped
from helpers_scoring import MODELS, NUM_POINTS, OUTPUTS, SCENARIOS, SCORING, Competition, write_line
from hostile_child import NOBODY, give_to_all, run_child
from mico_competition.scoring import program

from mico_competition.competition.submission import check_zip, unpack_submission

MB = 500

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and alarms")


@pytest.fixture
def folder():
    """A folder that is removed however deep or closed what a case makes in it is."""
    made = Path(tempfile.mkdtemp(prefix="mico_hostile_"))
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


def run_here(inputs, outputs, capsys):
    """The program in this process, which is faster: exit code, stdout, stderr."""
    code = program.main([str(inputs), str(outputs)])
    return code, *capsys.readouterr()


def check(case, competition, code, out, err):
    """One of the two ends that a case may have, as the case says."""
    assert not any(path.read_text() in out + err for path in competition.ref.rglob("*.csv"))
    assert "Traceback" not in err and "array(" not in out + err and err.isascii()
    if not case.words:
        assert (code, err, competition.written()) == (0, "", OUTPUTS), err
        return
    head, *faults = err.splitlines()
    ran = competition.outputs.exists()  # a zip that cannot be unpacked never reaches the program
    assert code == 1 and out == "" and competition.written() == [program.PAGE] * ran
    assert head.startswith("Not scored:") and head.endswith(".")
    assert case.words in "\n".join(faults) and all(len(fault) < 400 for fault in faults)
    assert all(fault.startswith(("- ", "... and ")) for fault in faults)
    assert all("cifar10" in fault or "submission" in fault for fault in faults)


def names(cases):
    return [case.name for case in cases]


@contextmanager
def without_rights(folder):
    """Nobody's rights for a while, where the tests run as root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    give_to_all(folder)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


LIGHT_TREES = [case for case in TREES if not case.heavy]


@pytest.mark.parametrize("case", one_in(8, LIGHT_TREES), ids=names(LIGHT_TREES))
def test_a_hostile_tree(folder, capsys, monkeypatch, case):
    competition = Competition(folder)
    case.make(competition)
    monkeypatch.chdir(folder)
    with without_rights(folder) if "without rights" in case.name else nullcontext():
        done = run_here("in", "out", capsys)
    check(case, competition, *done)
    if case.words and "without rights" not in case.name:
        # What is told does not depend on the truth: it is the same for the opposite truth.
        for path in competition.ref.rglob("*.csv"):
            write_line(path, [1 - int(bit) for bit in competition.read(path)])
        assert run_here("in", "out", capsys) == done


LIGHT_ZIPS = [case for case in ZIPS if not case.heavy]


@pytest.mark.parametrize("case", one_in(8, LIGHT_ZIPS), ids=names(LIGHT_ZIPS))
def test_a_hostile_zip(folder, capsys, case):
    competition = Competition(folder)
    path = folder / "submission.zip"
    case.make(path, copy_files(competition))
    before = sorted(folder.rglob("*"))
    try:
        unpack_submission(path, competition.inputs / "res")
    except ValueError as error:
        assert str(error).startswith(str(path)) and case.words
        done = 1, "", f"Not scored: zip.\n- submission: {error}\n"
        assert sorted(folder.rglob("*")) == before
    else:
        done = run_here(competition.inputs, competition.outputs, capsys)
    check(case, competition, *done)


HEAVY = [case for case in TREES + ZIPS if case.heavy]


@pytest.mark.slow
@pytest.mark.parametrize("case", HEAVY, ids=names(HEAVY))
def test_a_heavy_case_is_bounded_in_memory(folder, case):
    competition = Competition(folder)
    zips = [folder / "submission.zip"] if case.layer == "zip" else []
    if zips:
        case.make(zips[0], copy_files(competition))
    else:
        case.make(competition)
    done = run_child(folder, *zips)
    check(case, competition, *done[:3])
    assert done[3]["mb"] < MB, done[3]


# --- what the platform may do to the program: a spoilt OUT, no time, no numpy


def fault_of(competition, capsys):
    """The one line of a run that must fail; the truth is not in it."""
    code, out, err = run_here(competition.inputs, competition.outputs, capsys)
    assert (code, out) == (1, "") and err.count("\n") == 1
    return err


@pytest.mark.slow
def test_a_file_in_the_place_of_out(folder, capsys):
    competition = Competition(folder)
    competition.outputs.write_text("here first")
    assert fault_of(competition, capsys).startswith("Not scored: FileExistsError in program.py")
    assert competition.outputs.read_text() == "here first"


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_in_the_place_of_an_output(folder, capsys, name):
    competition = Competition(folder)
    assert run_here(competition.inputs, competition.outputs, capsys)[0] == 0
    (competition.outputs / name).unlink()
    (competition.outputs / name).mkdir()
    assert "Not scored: IsADirectoryError in program.py" in fault_of(competition, capsys)
    # And no scores of the earlier run.
    assert competition.written() == sorted({name, program.PAGE})


@pytest.mark.slow
def test_a_link_in_the_place_of_an_output_is_replaced_not_written_through(folder, capsys):
    competition = Competition(folder)
    competition.outputs.mkdir()
    before = competition.solution().read_text()
    for name in OUTPUTS:
        (competition.outputs / name).symlink_to(competition.solution())
    assert run_here(competition.inputs, competition.outputs, capsys)[0] == 0
    assert competition.solution().read_text() == before
    assert not any(path.is_symlink() for path in competition.outputs.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("call", ["open", "scandir"])
@pytest.mark.parametrize("number", ["ENOSPC", "EIO", "EMFILE", "ENOMEM"])
def test_what_the_machine_cannot_do_is_no_fault_of_the_submission(
    folder, capsys, monkeypatch, call, number
):
    competition = Competition(folder)
    before = getattr(os, call)

    def fail(path, *rest, **options):
        if isinstance(path, str) and "res" in Path(path).parts:
            raise OSError(getattr(errno, number), "no", path)
        return before(path, *rest, **options)

    monkeypatch.setattr(os, call, fail)
    fault = fault_of(competition, capsys)
    assert fault.startswith("Not scored: OSError in files.py, line ")
    assert fault.endswith(
        f" ({os.strerror(getattr(errno, number))}). Please tell the organisers.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["check_predictions", "write_outputs"])
def test_a_run_that_hangs_ends_in_a_sentence(folder, capsys, monkeypatch, stage):
    competition = Competition(folder)

    def hang(*args):
        (competition.outputs / "scores.txt").write_text("half")
        try:
            time.sleep(30)
        except Exception:
            time.sleep(30)  # what takes any error for its own cannot hold it up

    monkeypatch.setattr(program, stage, hang)
    monkeypatch.setattr(program, "TIME_LIMIT", 1)
    before = signal.getsignal(signal.SIGALRM)
    assert fault_of(competition, capsys) == (
        "Not scored: this took more than 1 seconds. Please tell the organisers.\n"
    )
    assert competition.written() == [program.PAGE]
    assert signal.getsignal(signal.SIGALRM) == before and signal.alarm(0) == 0


@pytest.mark.slow
def test_the_time_limit_comes_before_those_of_the_platforms():
    assert 60 <= program.TIME_LIMIT < 300


@pytest.mark.slow
def test_a_python_without_numpy_is_told_in_a_sentence(folder):
    (folder / "numpy.py").write_text("raise ImportError('gone', name='numpy')")
    done = subprocess.run(
        [sys.executable, SCORING / "score.py", "in", "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "cannot import numpy. Please tell the organisers." in done.stderr


# --- what it costs


def full_size(folder):
    """A competition as large as those of 2022: 3 scenarios of 50 models of 200 points."""
    rng = np.random.default_rng(0)
    for scenario in SCENARIOS:
        for i in range(100, 150):
            truth = rng.permutation(np.repeat([0, 1], 100))
            place = Path("cifar10", scenario, "dev", f"model_{i}")
            write_line(folder / "in" / "ref" / place / "solution.csv", truth.tolist())
            values = np.clip(0.3 * truth + 0.7 * rng.random(200), 0, 1)
            write_line(folder / "in" / "res" / place / "prediction.csv", values.tolist())


@pytest.mark.slow
def test_full_size_takes_under_a_second_and_100_mb(folder):
    full_size(folder)
    costs = []
    for _ in range(3):  # the best of three: other work on the machine makes it slower, never faster
        code, out, err, cost = run_child(folder)
        assert (code, out, err) == (0, "Scored 150 models in 3 scenarios.\n", "")
        costs.append(cost)
    assert min(cost["seconds"] for cost in costs) < 1, costs
    assert max(cost["mb"] for cost in costs) < 100, costs


# --- the same zips by `mico check --zip`


@pytest.fixture
def challenge(folder, monkeypatch):
    """A challenge folder as far as checks look at it, and a sound submission's files."""
    # A challenge folder holds no model of another phase's number, as the platform's files may.
    monkeypatch.setitem(MODELS, "dev", (100, 101, 102))
    competition = Competition(folder)
    files = copy_files(competition)
    for name in files:
        model = (folder / name).parent
        model.mkdir(parents=True)
        (model / "metadata.json").write_text(json.dumps({"len_challenge": NUM_POINTS // 2}))
    return folder / "cifar10", files


@pytest.mark.slow
def test_check_zip_says_what_the_platform_would(challenge, folder):
    path, files = folder / "submission.zip", challenge[1]
    path.write_bytes(zipped(files))
    assert check_zip(path, challenge[0]) == []
    words = {
        "metadata": "metadata at its top, which the platform would take for code",
        "../x": "leads out of its folder",
        "cifar10/cifar10_hi/dev/model_7/prediction.csv": "unexpected model folder 'model_7'",
    }
    for name, expected in words.items():
        plus(name)(path, files)
        (fault,) = check_zip(path, challenge[0])
        assert expected in fault
    path.write_bytes(zipped({"top/" + name: data for name, data in files.items()}))
    (fault,) = check_zip(path, challenge[0])
    assert "zip what is in that folder" in fault


@pytest.mark.slow
def test_many_faults_of_a_zip_are_counted_not_listed(challenge, folder):
    path = folder / "a\nb.zip"
    plus(*(f"../{i}" for i in range(1_000)))(path, challenge[1])
    faults = check_zip(path, challenge[0])
    assert len(faults) == 11 and faults[-1].endswith("has 990 more such faults.")
    assert all("\n" not in fault for fault in faults)
    with pytest.raises(ValueError, match=r"leads out .* \(and 10 more faults\)$"):
        unpack_submission(path, folder / "unpacked")
    assert not (folder / "unpacked").exists()
