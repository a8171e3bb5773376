"""What is written appears whole, with the right modes, through links, and never over a device."""

import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from mico_competition.support.files import (
    PRIVATE,
    PUBLIC,
    check_output,
    make_folder,
    open_private,
    write_text,
    written_aside,
)
from mico_competition.support.scratch import scratch


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("access", [PRIVATE, PUBLIC, None])
def test_modes_of_a_file_and_of_the_folders_made_for_it(tmp_path, umask, access):
    write_text(tmp_path / "a/b/file", "text", access=access)
    assert mode(tmp_path / "a/b/file") == (access.file if access else 0o666 & ~umask)
    for folder in ("a", "a/b"):
        assert mode(tmp_path / folder) == (access.folder if access else 0o777 & ~umask)


@pytest.mark.parametrize("access", [PRIVATE, PUBLIC])
def test_modes_of_a_whole_folder(tmp_path, umask, access):
    with written_aside(tmp_path / "tree", access=access) as aside:
        assert mode(aside.parent) == 0o700
        (aside / "inner").mkdir(parents=True)
        (aside / "inner/file").write_text("x")
        os.symlink("nowhere", aside / "link")
    assert mode(tmp_path / "tree") == mode(tmp_path / "tree/inner") == access.folder
    assert mode(tmp_path / "tree/inner/file") == access.file


def test_a_private_file_that_was_open_to_all_is_closed(tmp_path, umask):
    path = tmp_path / "log"
    path.write_text("1")
    path.chmod(0o644)
    with open_private(path) as log:
        log.write("2")
    assert (path.read_text(), mode(path)) == ("12", 0o600)


def test_folders_that_are_there_keep_their_modes(tmp_path):
    tmp_path.chmod(0o750)
    make_folder(tmp_path / "new", PRIVATE)
    assert (mode(tmp_path), mode(tmp_path / "new")) == (0o750, 0o700)
    (tmp_path / "file").write_text("")
    for below in ("file", "file/x"):
        with pytest.raises(NotADirectoryError):
            make_folder(tmp_path / below)
    with pytest.raises(OSError, match="is a folder"):  # for caches, which do without
        write_text(tmp_path / "new", "x")


def test_a_file_keeps_its_mode_when_it_is_written_again(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o640)


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("there", [True, False])
def test_links_are_written_through(tmp_path, hops, there):
    target = tmp_path / "elsewhere/target"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    links = [tmp_path / f"link{n}" for n in range(hops)]
    for link, to in zip(links, [*(link.name for link in links[1:]), "elsewhere/target"]):
        link.symlink_to(to)
    write_text(links[0], "new")
    assert target.read_text() == "new" and not target.is_symlink()
    assert all(link.is_symlink() for link in links)
    assert os.listdir(target.parent) == ["target"]


def test_a_link_to_a_folder_above_the_file_is_followed(tmp_path):
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/inner")
    write_text(tmp_path / "link/../file", "x")
    assert (tmp_path / "real/file").read_text() == "x"  # where the system finds it


def test_a_folder_is_written_through_a_link_too(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with written_aside(tmp_path / "link") as aside:
        aside.mkdir()
        (aside / "file").write_text("x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/file").read_text() == "x"


def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(ValueError, match="leads back to itself"):
        write_text(tmp_path / "one", "x")


def test_what_is_no_regular_file_is_refused_or_written_into_and_never_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        cwd = os.getcwd()
        os.chdir(tmp_path)
        try:
            listening.bind("socket")
        finally:
            os.chdir(cwd)
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("socket", "is a socket"),
        ("folder", "is a folder: name the file"),
        ("full", "is a folder that is not empty"),
        ("pipe", "Nobody reads the named pipe"),
    ):
        before = os.lstat(tmp_path / name)
        with pytest.raises(ValueError, match=words):
            write_text(tmp_path / name, "x")
        assert os.path.samestat(before, os.lstat(tmp_path / name)), name
    assert sorted(os.listdir(tmp_path)) == ["folder", "full", "pipe", "socket"]
    for name in ("socket", "folder", "full"):
        with pytest.raises(ValueError, match="is a folder: name the file|is a socket"):
            check_output(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/x cannot be written, because of .*file: name an"):
        check_output(tmp_path / "file/x")


def test_a_named_pipe_that_somebody_reads_gets_the_bytes(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    thread = threading.Thread(target=lambda: got.append(path.read_bytes()))
    thread.start()
    for _ in range(1000):  # until the thread has the pipe open
        try:
            write_text(path, "x" * 200_000)
            break
        except ValueError:
            threading.Event().wait(0.01)
    thread.join()
    assert got == [b"x" * 200_000] and stat.S_ISFIFO(path.lstat().st_mode)


def test_devices_take_bytes_and_stay(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    before = os.lstat("/dev/null")
    for path in ("/dev/null", tmp_path / "link"):
        write_text(path, "x")
        check_output(path)
    assert os.path.samestat(before, os.lstat("/dev/null"))
    with pytest.raises(ValueError, match="cannot hold a folder"), written_aside("/dev/null") as a:
        a.mkdir()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text("/dev/full", "x")


def test_an_error_of_a_full_disk_names_the_file_that_was_to_be_written(tmp_path):
    out = tmp_path / "out"
    for inner in (None, "part.csv"):  # Python names the temporary file, or none
        with pytest.raises(OSError, match="No space left") as error, written_aside(out) as aside:
            aside.mkdir()
            raise OSError(28, "No space left on device", inner and str(aside / inner))
        assert error.value.filename == str(out) and not out.exists()
    with pytest.raises(OSError, match="No space left") as error, written_aside(out) as aside:
        raise OSError(28, "No space left on device", "/elsewhere/x")
    assert error.value.filename == "/elsewhere/x"


_WRITE = "import sys; from mico_competition.support.files import write_text; "


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_gets_the_bytes_after_what_was_printed(tmp_path, path):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"{_WRITE}print('first'); write_text({path!r}, 'second\\n'); print('third')"
    with open(tmp_path / "out", "w+b") as out:
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "first\nsecond\nthird\n"


def test_a_process_substitution_gets_the_bytes(tmp_path):
    code = f"{_WRITE}write_text(sys.argv[1], 'text')"
    shell = 'exec "$0" -c "$1" >(cat > got; : > done)'
    subprocess.run(["bash", "-c", shell, sys.executable, code], cwd=tmp_path, check=True)
    for _ in range(1000):
        if (tmp_path / "done").exists():
            break
        threading.Event().wait(0.01)
    assert (tmp_path / "got").read_text() == "text"


@pytest.mark.parametrize("path", ["/dev/fd/987", "/dev/stdin"])
def test_a_descriptor_that_is_not_open_for_writing_is_refused(tmp_path, path):
    code = f"{_WRITE}write_text({path!r}, 'x')"
    with open(__file__) as stdin:
        run = subprocess.run(
            [sys.executable, "-c", code], stdin=stdin, capture_output=True, text=True
        )
    assert f"{path} is not open for writing" in run.stderr


@pytest.mark.parametrize("name", ["é" * 127, "a" * 255, "two\nlines", " ", "-x", "\udcff"])
def test_odd_names(tmp_path, name):
    write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path):
    code = (
        "import os, signal; from mico_competition.support.files import written_aside\n"
        "with written_aside('tree') as aside:\n"
        "    aside.mkdir(); (aside / 'secret').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert [mode(tmp_path / name) for name in os.listdir(tmp_path)] == [0o700]
    write_text(tmp_path / "tree", "x")
    assert os.listdir(tmp_path) == ["tree"]


def test_work_of_others_is_left_alone(tmp_path):
    with scratch(tmp_path, "name") as one, scratch(tmp_path, "name") as two:
        (one / "file").write_text("1")
        with scratch(tmp_path, "name") as three:
            assert len({one, two, three}) == 3
        assert (one / "file").read_text() == "1"
    assert os.listdir(tmp_path) == []


def test_a_gap_between_numbers_hides_nothing(tmp_path):
    for number in (0, 2, 5):
        (tmp_path / f"name-{number}").mkdir(mode=0o700)
        (tmp_path / f"name-{number}/left").write_text("x")
    (tmp_path / "name-1").mkdir(mode=0o755)  # not of our making, since others may read it
    (tmp_path / "name-3").symlink_to("/nowhere")
    with scratch(tmp_path, "name") as mine:
        assert mine == tmp_path / "name-0" and os.listdir(mine) == []
        assert sorted(os.listdir(tmp_path)) == ["name-0", "name-1", "name-3"]


def test_a_file_system_that_gives_what_is_made_to_somebody_else(tmp_path, monkeypatch):
    """As NFS does with what root makes."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    write_text(tmp_path / "file", "x", access=PRIVATE)
    assert os.listdir(tmp_path) == ["file"] and mode(tmp_path / "file") == 0o600


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for text in "12":
        write_text(tmp_path / "file", text)
    assert (tmp_path / "file").read_text() == "2" and os.listdir(tmp_path) == ["file"]
