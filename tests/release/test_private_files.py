"""What is withheld is readable by its owner only, whatever the umask, and does not stay behind."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers_release import CHALLENGE, MODELS, write_trained

from mico_competition.cli import main
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.submission import write_prediction


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(*tops):
    """Path -> mode of all below some files and folders, those included."""
    paths = [path for top in tops for path in (top, *top.rglob("*"))]
    return {path: (path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in paths}


def assert_private(*tops):
    found = modes(*tops)
    assert found
    wanted = {True: 0o700, False: 0o600}  # of folders, of files
    assert not {path: oct(m) for path, (folder, m) in found.items() if m != wanted[folder]}


def assert_public(*tops):
    found = modes(*tops)
    assert {m for _, m in found.values()} == {0o755, 0o644}, found


DATES = "--dev_start 2031-01-01T00:00:00 --final_start 2031-02-01T00:00:00 --end".split()
DATES = [word.replace("T", " ") for word in [*DATES, "2031-03-01T00:00:00"]]


@pytest.mark.slow
def test_the_organisers_files(tmp_path, umask):
    trained, out = write_trained(tmp_path / "trained"), tmp_path / "out"
    assert main(["release", str(trained), "--to", str(out / "released")]) == 0
    assert_public(out / "released")
    assert_private(trained / CHALLENGE / "openings.json")
    for phase in ("dev", "final"):
        to = str(out / "ref" / phase)
        command = ["reference", str(trained), "--challenge", CHALLENGE, "--phase", phase]
        assert main([*command, "--to", to]) == 0
    assert_private(out / "ref")
    file = str(out / "revealed.json")
    assert main(["reveal", str(trained), "--phase", "dev", "--to", file]) == 0
    assert main(["verify", str(out / "released/digits"), file, "--to", str(out / "truth")]) == 0
    bundle = ["bundle", str(trained), "--challenge", CHALLENGE]
    assert main([*bundle, "--out", str(out / "b/final.zip"), "--final_reference"]) == 0
    assert main([*bundle, "--out", str(out / "b/all.zip"), *DATES]) == 0
    assert_private(out / "revealed.json", out / "truth", out / "b")
    assert main(["release", str(trained), "--to", str(out / "released"), "--reveal", "dev"]) == 0
    assert_public(out / "released")


@pytest.mark.slow
def test_what_a_fleet_writes(tmp_path, umask):
    command = ["fleet", "digits_inf", "--models", "0", "--out", str(tmp_path / "fleet")]
    assert main([*command, "--num_epochs", "1", "--workers", "1", "--threads", "1"]) == 0
    assert_private(tmp_path / "fleet")
    names = {path.name for path in (tmp_path / "fleet").rglob("*")}
    assert names >= {"ledger.jsonl", "events.jsonl", "lock", "model.pt", "solution.csv"}


def test_a_folder_of_the_organisers_own_keeps_its_mode(tmp_path, umask):
    (tmp_path / "mine").mkdir(mode=0o755)
    os.chmod(tmp_path / "mine", 0o755)
    command = ["train", "--scenario", "digits_inf", "--model_id", "0", "--num_epochs", "1"]
    assert main([*command, "--output_dir", str(tmp_path / "mine/model")]) == 0
    assert modes(tmp_path / "mine")[tmp_path / "mine"] == (True, 0o755)
    assert_private(tmp_path / "mine/model")


@pytest.fixture
def competition_zips(tmp_path):
    """(bundle, submission, truth of Final) of the digits."""
    trained = write_trained(tmp_path / "trained")
    bundle = ["bundle", str(trained), "--challenge", CHALLENGE]
    assert main([*bundle, "--out", str(tmp_path / "all.zip"), *DATES]) == 0
    assert main([*bundle, "--out", str(tmp_path / "final.zip"), "--final_reference"]) == 0
    for model in walk_challenge(trained / CHALLENGE):
        path = model.prediction_in(tmp_path / "trained/digits.predictions")
        write_prediction(path, [i / 200 for i in range(200)])
    zipped = str(tmp_path / "submission.zip")
    assert main(["submit", str(trained / CHALLENGE), "--zip", zipped]) == 0
    return tmp_path / "all.zip", tmp_path / "submission.zip", tmp_path / "final.zip"


SLOW_PYTHON = "#!/bin/sh\ntouch {started}\nexec sleep 600\n"


def rehearsal(zips, tmp_path, *, slow):
    """A rehearsal in a process of its own, whose scoring takes for ever if `slow`."""
    bundle, submission, final = zips
    python = tmp_path / "python"
    python.write_text(SLOW_PYTHON.format(started=tmp_path / "started"))
    python.chmod(0o755)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [Path(sys.executable).with_name("mico"), "rehearse", bundle, submission]
    command += ["--final_reference", final, "--out", tmp_path / "kept"]
    return subprocess.Popen(
        [*map(str, command), *(["--python", str(python)] if slow else [])],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(path):
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_rehearsal_that_is_stopped_leaves_no_truth(competition_zips, tmp_path, how):
    process = rehearsal(competition_zips, tmp_path, slow=True)
    wait_for(tmp_path / "started")
    folders = list((tmp_path / "tmp").iterdir())
    assert any(path.rglob("solution.csv") for path in folders)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    process.send_signal(how)
    code = process.wait()
    if how != signal.SIGKILL:
        assert code == 128 + how
        assert not list((tmp_path / "tmp").iterdir())
        return
    assert list((tmp_path / "tmp").rglob("solution.csv"))  # nothing runs any more that could help
    assert rehearsal(competition_zips, tmp_path, slow=False).wait() == 0
    assert not list((tmp_path / "tmp").iterdir())
    assert_private(tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_release_that_is_killed_leaves_nothing_that_others_see(tmp_path, how):
    trained = write_trained(tmp_path / "trained")
    code = (
        "import os, sys; from mico_competition.cli import main; "
        "from mico_competition.release import release\n"
        "def check(*args, **options):\n"
        f"    os.kill(os.getpid(), {int(how)}); return []\n"
        "release.check_release = check\n"
        f"main(['release', {str(trained)!r}, '--to', 'out'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    left = list((tmp_path / "out").iterdir())
    assert len(left) == (how == signal.SIGKILL)
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} <= {0o700}
    assert not (trained / CHALLENGE / "openings.json").exists()
    assert main(["release", str(trained), "--to", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "digits",
        "digits.release",
    ]
    assert main(["leaks", str(tmp_path / "out"), "--trained", str(trained)]) == 0
    assert len(list((tmp_path / "out").rglob("model.pt"))) == 3 * sum(MODELS.values())


def test_no_checkpoint_reaches_a_release(tmp_path):
    """Neither those of `mico train`, beside the models, nor those of a fleet."""
    trained = write_trained(tmp_path / "trained")
    marker = b"the state of a run"
    phase = next(trained.glob(f"{CHALLENGE}/*/dev"))
    for folder in (
        phase / ".checkpoint-model_100",
        trained / CHALLENGE / ".checkpoint-model_0",
        trained / "fleet" / phase.parent.name / "checkpoints" / "model_100",
    ):
        folder.mkdir(parents=True)
        (folder / "state_1.pt").write_bytes(marker)
        (folder / "checkpoint.json").write_bytes(marker)
    out = tmp_path / "out"
    assert main(["release", str(trained), "--to", str(out / "released")]) == 0
    to = ["--challenge", CHALLENGE, "--phase", "final", "--to", str(out / "ref")]
    assert main(["reference", str(trained), *to]) == 0
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 10  # archives among them, which are not compressed
    assert not list(out.rglob("*checkpoint*"))
    assert not [path for path in files if marker in path.read_bytes()]
