"""Downloads against a server of our own: progress kept, checksums held, errors in a sentence."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mico_competition.data.downloads import DownloadError, download

CONTENT = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at any path; what the path says changes how."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        wish = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.wishes.append(int(wish.group(1)) if wish else None)
        if self.path == "/missing":
            return self.send_error(404)
        if self.path == "/elsewhere":
            return self.redirect(self.server.target)
        start = int(wish.group(1)) if wish and self.path != "/no-ranges" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        breaks_off = self.path == "/breaks" and not start
        self.wfile.write(CONTENT[start : 100_000 if breaks_off else None])
        return None

    def redirect(self, target):
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on this machine; `wishes` are the offsets it was asked to start from."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.wishes = []
        serving.url = f"http://127.0.0.1:{serving.server_port}"
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_whole(server, tmp_path):
    checks = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha256")}
    path = download(f"{server.url}/a", tmp_path / "new" / "a.bin", **checks)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.bin"]


def test_an_interrupted_download_resumes(server, tmp_path):
    path = tmp_path / "a.bin"
    with pytest.raises(
        DownloadError, match=r"100,000 of 256,000 bytes arrived.*run again to resume"
    ):
        download(f"{server.url}/breaks", path)
    assert names(tmp_path) == ["a.bin.part"]
    download(f"{server.url}/breaks", path, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert server.wishes == [None, 100_000]
    assert names(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    assert download(f"{server.url}/no-ranges", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.wishes == [14]


def test_a_part_that_is_whole_needs_no_more(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert download(f"{server.url}/a", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.wishes == [len(CONTENT)]


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert download(f"{server.url}/a", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.wishes == [len(CONTENT) + 4, None]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_leaves_nothing(server, tmp_path, algorithm):
    with pytest.raises(DownloadError, match=f"{algorithm}.*not 00ff: it was deleted; run again"):
        download(f"{server.url}/a", tmp_path / "a.bin", **{algorithm: "00ff"})
    assert names(tmp_path) == []


def test_a_refusal_names_the_address_and_the_mend(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        download(f"{server.url}/missing", tmp_path / "a.bin")
    assert f"{server.url}/missing: the server answered 404 Not Found" in str(caught.value)
    assert f"put it at {tmp_path / 'a.bin'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(DownloadError, match="check the connection and run again"):
        download("http://127.0.0.1:9/a", tmp_path / "a.bin")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a", "/etc/hostname"])
def test_other_addresses_are_not_fetched(url, tmp_path):
    with pytest.raises(ValueError, match="only http and https"):
        download(url, tmp_path / "a.bin")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1:9/a"])
def test_a_server_cannot_lead_elsewhere(server, tmp_path, target):
    server.target = target
    with pytest.raises(DownloadError):
        download(f"{server.url}/elsewhere", tmp_path / "a.bin")
    assert names(tmp_path) == []


def test_a_redirect_is_followed(server, tmp_path):
    server.target = "/a"
    assert download(f"{server.url}/elsewhere", tmp_path / "a.bin").read_bytes() == CONTENT


def test_no_progress_without_a_terminal(server, tmp_path, capsys):
    download(f"{server.url}/a", tmp_path / "a.bin")
    assert capsys.readouterr() == ("", "")
