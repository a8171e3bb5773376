"""What a small Hugging Face Hub holds and does wrong, and how tests come to it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers_release import files_below

from mico_competition.competition.solutions import membership

LARGE = (".pt", ".bin", ".safetensors", ".zip")
TOKEN = "hf_test"


@dataclass
class Request:
    """What was asked: a Range from `start` to `end`; `sent` are the bytes of the answer."""

    method: str
    path: str
    start: int | None
    token: bool
    body: bytes
    sent: int = 0
    end: int | None = None


@dataclass
class Fault:
    """What goes wrong with a file, for the next `times` requests.

    `status` answers with an error, `wrong` flips a byte, `instead` is sent in the file's place;
    `breaks` ends the body after so many bytes, or, with `stalls`, waits there until the hub ends.
    """

    status: int | None = None
    wrong: bool = False
    instead: bytes | None = None
    breaks: int | None = None
    stalls: bool = False
    times: int = 1_000_000


@dataclass
class Repository:
    """Files by path; `status` and `code` answer every request for it with an error."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    status: int | None = None
    code: str = ""
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The commit's name: it changes with the content."""
        state = repr(sorted((p, hashlib.sha256(c).digest()) for p, c in self.files.items()))
        return hashlib.sha1(state.encode()).hexdigest()


class Hub:
    """Its repositories, storage, requests and faults; `url` and `cdn` are its two origins."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.faults: dict[str, Fault] = {}
        self.page_size = 1000
        self.fail_all: int | None = None
        self.commit_allowed = 99
        self.stalled, self.closing = threading.Event(), threading.Event()
        self.url = self.cdn = ""

    def add(self, name: str, files: dict[str, bytes], **flags) -> Repository:
        """A new repository of these files."""
        self.repositories[name] = Repository({".gitattributes": b"*.pt\n", **files}, **flags)
        self.storage |= {hashlib.sha256(c).hexdigest(): c for c in files.values()}
        return self.repositories[name]

    def asked(self, ending: str, method: str = "GET") -> list[Request]:
        """The requests whose path ends so."""
        return [r for r in self.log if r.method == method and r.path.endswith(ending)]

    def fault_of(self, path: str) -> Fault:
        """The fault that a request for `path` meets."""
        fault = self.faults.get(path)
        if fault is None or not fault.times:
            return Fault()
        fault.times -= 1
        return fault


def git_name(content: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def online(monkeypatch):
    """The real client in this process, on the network, patient but quick to try again."""
    import time

    from huggingface_hub import close_session, constants

    sleep = time.sleep
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield
    close_session()


def start_mico(hub_url: str, home: Path, *arguments: object, **environment: str):
    """`mico` in a process of its own, with the real client and `hub_url` as its Hub."""
    settings = {
        "HF_ENDPOINT": hub_url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "no_proxy": "127.0.0.1",
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("mico"), *map(str, arguments)],
        env={**os.environ, **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_mico(hub_url: str, home: Path, *arguments: object, **environment: str):
    """As `start_mico`; gives exit code, standard output and standard error."""
    with start_mico(hub_url, home, *arguments, **environment) as process:
        out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def made_up(*places: str, size: int = 1000) -> dict[str, bytes]:
    """Files of models at `<scenario>/<phase>/model_<i>`, whose weights are not real."""
    files = {}
    for place in places:
        known = 3 if "/train/" in place else 1
        names = ("seed_challenge", "seed_training", "seed_membership")[:known]
        seeds = {n: hashlib.sha256(f"{place} {n}".encode()).hexdigest()[:32] for n in names}
        files |= {f"{place}/{name}": f"{seed}\n".encode() for name, seed in seeds.items()}
        if "seed_membership" in seeds:
            labels = ",".join(map(str, membership(seeds["seed_membership"], 200)))
            files[f"{place}/solution.csv"] = f"{labels}\n".encode()
        block = hashlib.sha256(place.encode()).digest()
        files[f"{place}/model.pt"] = (block * (size // len(block) + 1))[:size]
    return files


def add_sums(folder: Path) -> Path:
    """Write SHA256SUMS beside a challenge folder, as `mico release` does; gives `folder`."""
    side = folder.with_name(f"{folder.name}.release")
    side.mkdir(exist_ok=True)
    (side / "SHA256SUMS").unlink(missing_ok=True)
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {top.name}/{path}\n"
        for top in (folder, side)
        for path, content in files_below(top).items()
    ]
    (side / "SHA256SUMS").write_text("".join(lines))
    return folder


def published(folder: Path) -> dict[str, bytes]:
    """Content of a release's files, but archives, by path when published as single files."""
    side = folder.with_name(f"{folder.name}.release")
    return {
        f"{top.name}/{path}": content
        for top in (folder, side)
        for path, content in files_below(top).items()
        if not path.startswith("archives/")
    }
