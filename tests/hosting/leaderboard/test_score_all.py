"""A folder of zips, scored in processes that are killed for real: nothing is lost or done twice."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from helpers_fleet import wait_for
from helpers_leaderboard import predictions_of, write_truth, write_zip
from mico_competition.scoring.printable import is_plain

from mico_competition.cli import main
from mico_competition.competition.table import using
from mico_competition.hosting.leaderboard import score_all as scoring
from mico_competition.hosting.leaderboard.entries import check_entries, read_entries
from mico_competition.hosting.leaderboard.score_all import score_all
from mico_competition.hosting.leaderboard.truth_tree import read_truth

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

SLOW = ("--resamples", "40000")  # a quarter of a second a zip


class Folder:
    """Submissions with their truth, and the command that scores them."""

    def __init__(self, root, count=3):
        self.root, self.zips, self.out = root, root / "zips", root / "leaderboard"
        self.truth = write_truth(root / "truth", models=6)  # enough for a bootstrap
        self.zips.mkdir()
        (root / "tmp").mkdir()
        for i in range(count):
            write_zip(self.zips / f"team{i}.zip", predictions_of(self.truth, 0.1, seed=i))

    def arguments(self, *flags):
        base = ["score-all", self.zips, "--truth", self.root / "truth", "--out", self.out]
        return [*map(str, base), *flags]

    def start(self, *flags):
        return subprocess.Popen(
            [sys.executable, "-m", "mico_competition.cli", *self.arguments(*flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.root / "tmp")},
        )

    def stamps(self):
        paths = [*self.out.glob("*/*.json")]
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def names(self):
        return sorted(entry.values["name"] for entry in read_entries(self.out))

    def faults(self):
        found = sorted((self.out / "faults").glob("*"))
        return {path.name.removesuffix(".faults.txt"): path.read_text() for path in found}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def children(pid):
    """Ids of the processes that process `pid` started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found


def workers_of(process):
    """Processes that score: children of the server that is a child of the command."""
    return [worker for child in children(process.pid) for worker in children(child)]


@pytest.mark.slow
def test_one_bad_zip_never_stops_the_rest(folder, capsys):
    zips, truth = folder.zips, folder.truth
    (zips / "text.zip").write_text("hello")
    (zips / "folder.zip").mkdir()
    os.mkfifo(zips / "pipe.zip")
    (zips / "gone.zip").symlink_to("/nowhere")
    (zips / "endless.zip").symlink_to("/dev/zero")
    content = bytearray((zips / "team0.zip").read_bytes())
    content[60:100] = bytes(40)
    (zips / "damaged.zip").write_bytes(content)
    write_zip(zips / "less.zip", dict(list(predictions_of(truth).items())[3:]))
    write_zip(zips / "nan.zip", {k: v * np.nan for k, v in predictions_of(truth).items()})
    with zipfile.ZipFile(zips / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("cifar10/x", bytes(100 << 20))
    with zipfile.ZipFile(zips / "out.zip", "w") as out:
        out.writestr("../outside.csv", "1")
    shutil.copy(zips / "team0.zip", zips / f"long{'x' * 200}.zip")
    shutil.copy(zips / "team0.zip", zips / "TEAM.ZIP")
    shutil.copy(zips / "team0.zip", zips / ".hidden.zip")
    for name, text in {
        "told": "[]",
        "odd": '{"rank": 1}',
        "link": '{"link": "javascript:x"}',
    }.items():
        shutil.copy(zips / "team0.zip", zips / f"{name}.zip")
        (zips / f"{name}.json").write_text(text)
    assert main(folder.arguments("--workers", "2")) == 1
    said = capsys.readouterr()
    assert "18 zips: 4 scored, 0 done before, 14 with faults" in said.out
    assert "Traceback" not in said.err + said.out
    assert folder.names() == ["TEAM", "team0", "team1", "team2"]
    bad = "text folder pipe gone endless damaged less nan bomb out told odd link".split()
    assert set(bad) < set(folder.faults()) and len(folder.faults()) == 14
    assert all(text.strip() and len(text) < 10_000 for text in folder.faults().values())
    for labels in truth.values():
        assert ",".join(map(str, labels)) not in "".join(folder.faults().values()) + said.out
    assert not (folder.root / "outside.csv").exists()
    for name in bad:  # what is mended, or gone, is forgotten
        shutil.rmtree(zips / f"{name}.zip") if name == "folder" else (zips / f"{name}.zip").unlink()
    (zips / f"long{'x' * 200}.zip").unlink()
    shutil.copy(zips / "team0.zip", zips / "text.zip")
    assert main(folder.arguments()) == 0
    assert "5 zips: 1 scored, 4 done before, 0 with faults" in capsys.readouterr().out
    assert "text" not in folder.faults()


SIDECARS = {
    "early": b'{"submitted": "0001-01-01T00:00:00+23:59"}',
    "late": b'{"submitted": "9999-12-31T23:59:59-23:59"}',
    "past": b'{"submitted": "2019-12-31T23:59:59Z"}',
    "future": b'{"submitted": "2098-01-01T00:00:00Z"}',
    "stamp": b'{"submitted": 1e999}',
    "number": b'{"name": 5}',
    "null": b'{"name": null, "submitted": null}',
    "nested": b'{"authors": [[["Ada"]]]}',
    "object": b'{"authors": {"name": "Ada"}}',
    "nan": b'{"link": NaN}',
    "huge": b'{"name": 1' + b"0" * 10_000 + b"}",
    "deep": b'{"authors": ' + b"[" * 9_000 + b"]" * 9_000 + b"}",
    "half": b'{"name": "\\ud800"}',
    "twice": b'{"name": "a", "name": "b"}',
    "long": b'{"description": "' + b"x" * 30_000 + b'"}',
    "bytes": b'{"name": "\xff"}',
    "wide": '{"name": "x"}'.encode("utf-16"),
    "turned": '{"name": "\u202egpj"}'.encode(),
    "unseen": '{"name": "a\u200bb"}'.encode(),
    "stacked": ('{"name": "a' + "\u0301" * 30 + '"}').encode(),
    "line": b'{"name": "a\\n::set-output name=x::1"}',
    "escape": b'{"command": "\\u001b[2J"}',
    "alike": '{"name": "t\u0435am1"}'.encode(),  # a Cyrillic letter in the name of team1
    "alike too": b'{"name": "TEAMl"}',
}


@pytest.mark.slow
def test_nothing_beside_one_zip_stops_the_rest(folder, capsys):
    zips, when = folder.zips, "2026-01-01T00:00:00Z"
    for i in range(3):
        (zips / f"team{i}.json").write_text(json.dumps({"submitted": when}), encoding="utf-8-sig")
    for name, text in SIDECARS.items():
        shutil.copy(zips / "team0.zip", zips / f"{name}.zip")
        (zips / f"{name}.json").write_bytes(text)
    for name in ("folder", "pipe", "outside", "loop", "hidden"):
        shutil.copy(zips / "team0.zip", zips / f"{name}.zip")
    (zips / "folder.json").mkdir()
    os.mkfifo(zips / "pipe.json")
    (folder.root / "secret.json").write_text('{"name": "secret"}')
    (zips / "outside.json").symlink_to(folder.root / "secret.json")
    (zips / "loop.json").symlink_to("loop.json")
    (zips / "hidden.json").symlink_to("/nowhere/x.json")
    for name, time in (("epoch", 0), ("eons", 2**40)):
        shutil.copy(zips / "team0.zip", zips / f"{name}.zip")
        os.utime(zips / f"{name}.zip", (time, time))
    (folder.root / "other.zip").write_bytes((zips / "team0.zip").read_bytes())
    (zips / "linked.zip").symlink_to(folder.root / "other.zip")
    bad = [*SIDECARS, "folder", "pipe", "outside", "loop", "hidden", "epoch", "eons", "linked"]
    for name in ("a\n::set-output name=x::1", "\x1b[2J", os.fsdecode(b"\xff"), "x\u3164"):
        shutil.copy(zips / "team0.zip", zips / f"{name}.zip")
        bad.append(name)
    assert main(folder.arguments("--workers", "2")) == 1
    said = capsys.readouterr()
    assert f"{3 + len(bad)} zips: 3 scored, 0 done before, {len(bad)} with faults" in said.out
    assert folder.names() == ["team0", "team1", "team2"]
    assert len(folder.faults()) == len(bad) and "secret" not in str(folder.faults().values())
    for text in (said.out, said.err, *folder.faults(), *folder.faults().values()):
        assert all(is_plain(line) for line in text.splitlines())
        assert "::set" not in [line[:5] for line in text.splitlines()]
    assert "looks like 'team1'" in folder.faults()["alike"]
    assert check_entries(folder.out)[1] == []


def test_whatever_one_submission_raises_is_its_fault_alone(folder, monkeypatch):
    truths = [read_truth(folder.root / "truth", "cifar10", "dev")]

    def explode(path):
        raise {"team0": RecursionError, "team1": KeyError, "team2": OverflowError}[path.stem]

    monkeypatch.setattr(scoring, "read_about", explode)
    _, outcomes = score_all(folder.zips, truths, folder.out)
    assert [o.faults.split()[0] for o in outcomes] == [
        "RecursionError",
        "KeyError",
        "OverflowError",
    ]


@pytest.mark.slow
def test_what_this_machine_cannot_do_is_nobodys_fault(folder, capsys):
    """A disk without room, as a limit to the size of files: it stops, and goes on afterwards."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from mico_competition.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *folder.arguments("--workers", "2", "--quiet")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.startswith("mico: /") and "File too large" in finished.stderr
    assert finished.stderr.count("\n") == 1 and not folder.faults()
    assert not list(folder.out.glob("*/*.json"))
    (folder.zips / "bad.zip").write_text("no zip")
    assert main(folder.arguments()) == 1
    assert "4 zips: 3 scored, 0 done before, 1 with faults" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["ENOSPC", "EIO", "EMFILE", "ENOMEM"])
def test_errors_of_this_machine_are_told_apart_while_zips_are_read(folder, monkeypatch, number):
    truths = [read_truth(folder.root / "truth", "cifar10", "dev")]
    error = OSError(getattr(errno, number), "as it happens")
    monkeypatch.setattr(scoring, "sha256_of", lambda path: (_ for _ in ()).throw(error))
    with pytest.raises(OSError, match="as it happens"):
        list(score_all(folder.zips, truths, folder.out)[1])
    assert not folder.faults()


@pytest.mark.parametrize("broken", [False, True], ids=["another table", "no table"])
def test_a_competition_that_changes_meanwhile_is_no_submissions_fault(folder, broken):
    text = (files("mico_competition.competition") / "mico2022.toml").read_text(encoding="utf-8")
    file = folder.root / "competition.toml"
    file.write_text(text, encoding="utf-8")
    with using(file):
        truths = [read_truth(folder.root / "truth", "cifar10", "dev")]
        outcomes = score_all(folder.zips, truths, folder.out, workers=1)[1]
        assert next(outcomes).entries
        file.write_text("[" if broken else f"{text}# changed\n", encoding="utf-8")
        with pytest.raises(ValueError, match="competition.toml on .* is not as the command read"):
            list(outcomes)
    assert not folder.faults() and folder.names() == ["team0"]


@pytest.mark.alone
def test_killed_it_goes_on_where_it_stopped(tmp_path):
    """kill -9 of the command: its processes end, whole entries stay, none is made again."""
    folder = Folder(tmp_path, count=4)
    process = folder.start(*SLOW, "--workers", "2")
    wait_for(lambda: len(folder.stamps()) >= 1)
    workers = wait_for(lambda: workers_of(process))
    process.kill()
    process.communicate()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 30)
    before = folder.stamps()
    assert 1 <= len(before) < 4 and check_entries(folder.out)[1] == []
    process = folder.start(*SLOW, "--workers", "2")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert f"4 zips: {4 - len(before)} scored, {len(before)} done before, 0 with faults" in out
    assert err == ""  # no bar where there is no terminal
    assert before.items() <= folder.stamps().items() and len(folder.stamps()) == 4
    assert not list(folder.out.rglob(".*"))


@pytest.mark.alone
def test_a_worker_that_dies_costs_its_own_zip_a_try_and_then_the_place(folder, capsys):
    """In the order of trials: team0 dies, team1 dies, team2 is done, team0 dies again, team1."""
    process, killed = folder.start(*SLOW, "--workers", "1"), set()
    for done in (0, 0, 1):
        wait_for(
            lambda done=done: len(folder.stamps()) == done and set(workers_of(process)) - killed
        )
        for worker in set(workers_of(process)) - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert len(killed) == 3
    assert "3 zips: 2 scored, 0 done before, 1 with faults" in out
    assert folder.names() == ["team1", "team2"]
    assert list(folder.faults()) == ["team0"] and "died twice" in folder.faults()["team0"]
    assert not os.listdir(folder.root / "tmp")
    assert main(folder.arguments()) == 0
    assert "3 zips: 1 scored, 2 done before, 0 with faults" in capsys.readouterr().out
    assert not folder.faults()


@pytest.mark.alone
def test_ctrl_c_is_a_sentence(folder):
    process = folder.start(*SLOW, "--workers", "2")
    wait_for(lambda: workers_of(process))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode in (130, -signal.SIGINT)
    assert err.startswith("mico: stopped") and "Traceback" not in out + err


@pytest.mark.alone
def test_time_and_memory_have_limits(folder):
    truths = [read_truth(folder.root / "truth", "cifar10", "dev")]
    base = (folder.zips, truths, folder.out)
    total, outcomes = score_all(*base, seconds=0.2, resamples=2_000_000, exact=True, workers=3)
    assert total == 3
    assert {o.faults for o in outcomes} == {"it took too long, and was ended"}
    _, outcomes = score_all(*base, memory=256 << 20, resamples=100_000_000, exact=True, workers=3)
    assert {o.faults for o in outcomes} == {"it needs more than 256 MB of memory"}
    _, outcomes = score_all(*base, workers=3)
    assert all(o.entries and not o.faults for o in outcomes) and not folder.faults()


@pytest.mark.slow
def test_what_stands_beside_a_zip_is_told(folder, capsys):
    told = {"name": "Ada & co", "authors": ["Ada"], "submitted": "2027-01-13T14:00:00+02:00"}
    (folder.zips / "team0.json").write_text(json.dumps(told))
    flags = ["--phase", "dev", "--phase", "final"]
    assert main(folder.arguments(*flags)) == 0
    mine = [e for e in read_entries(folder.out) if e.values["name"] == "Ada & co"]
    assert [e.phase for e in mine] == ["dev", "final"]
    assert all(e.submitted == "2027-01-13T12:00:00Z" for e in mine)
    before = folder.stamps()
    assert main(folder.arguments(*flags)) == 0 and folder.stamps() == before
    assert main(folder.arguments()) == 0 and folder.stamps() == before
    (folder.zips / "team0.json").write_text(json.dumps({**told, "link": "https://example.org"}))
    os.utime(folder.zips / "team1.zip")  # was copied; its time of submission is on file
    capsys.readouterr()
    assert main(folder.arguments(*flags)) == 0
    assert "1 scored, 2 done before" in capsys.readouterr().out
    assert folder.stamps().keys() == before.keys()
    assert main(folder.arguments(*flags, "--again")) == 0
    assert "3 scored, 0 done before" in capsys.readouterr().out
    assert folder.stamps().keys() == before.keys()
    assert main(folder.arguments("--data_version", "2")) == 0  # other data: scored anew
    assert "3 scored, 0 done before" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_zip_of_two_people_is_two_entries(folder, capsys):
    shutil.copy(folder.zips / "team0.zip", folder.zips / "copy.zip")
    assert main(folder.arguments()) == 0
    assert main(folder.arguments("--again")) == 0
    assert folder.names() == ["copy", "team0", "team1", "team2"]
    told = {"name": "One", "submitted": "2027-01-01T00:00:00Z"}
    for i in (1, 2):  # of two submissions at one time, which would be the latest?
        (folder.zips / f"team{i}.json").write_text(json.dumps(told))
    assert main(folder.arguments()) == 1
    assert "say when in a JSON file" in "".join(folder.faults().values())
    assert check_entries(folder.out)[1] == []


def test_mistakes_are_sentences(folder, capsys):
    (folder.root / "none").mkdir()
    base = ["--truth", str(folder.root / "truth"), "--out", str(folder.out)]
    assert main(["score-all", str(folder.root / "none"), *base]) == 1
    assert main(["score-all", str(folder.root / "nowhere"), *base]) == 1
    assert main(folder.arguments("--workers", "0")) == 2
    assert main(folder.arguments("--challenge", "sst2")) == 1
    (folder.out / "cifar10").mkdir(parents=True)
    (folder.out / "cifar10" / "x.json").write_text("{}")
    assert main(folder.arguments()) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and all(line.startswith("mico: ") for line in said)
