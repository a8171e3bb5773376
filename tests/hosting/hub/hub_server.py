"""A small Hugging Face Hub on this machine: it answers what the real client asks.

Files that the Hub would keep in large file storage are answered, as there, with a redirect to
another origin, that of `cdn`.  What goes wrong is switched on in the `Hub` (`helpers_hub`).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from helpers_hub import LARGE, TOKEN, Fault, Hub, Repository, Request, git_name


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def answer(self) -> None:
        """Note the request, find what answers it, answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        path = unquote(split.path)
        wish = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.request_note = Request(
            self.command,
            path,
            int(wish.group(1)) if wish else None,
            self.headers.get("Authorization") == f"Bearer {TOKEN}",
            body,
            end=int(wish.group(2)) + 1 if wish and wish.group(2) else None,
        )
        self.hub.log.append(self.request_note)
        if self.hub.fail_all:
            return self.send(self.hub.fail_all, b"")
        for pattern, name in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                with contextlib.suppress(ConnectionError):
                    getattr(self, name)(body, parse_qs(split.query), *match.groups())
                return None
        self.send(404, b"")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.request_note.sent = len(body)
            self.wfile.write(body)

    def send_json(self, answer: object, status: int = 200, **headers: str) -> None:
        self.send(status, json.dumps(answer).encode(), Content_Type="application/json", **headers)

    def repository(self, name: str) -> Repository | None:
        """The repository, or None when the answer is sent already."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.request_note.token):
            self.send_json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        elif found.status:
            self.send_json({"error": "no"}, found.status, X_Error_Code=found.code)
        else:
            return found
        return None

    def at_revision(self, name: str, revision: str | None) -> Repository | None:
        found = self.repository(name)
        if found and revision not in (None, "main", found.head):
            self.send_json({"error": "no such revision"}, 404, X_Error_Code="RevisionNotFound")
            return None
        return found

    def info(self, body, query, name, revision=None):
        if found := self.at_revision(name, revision):
            self.send_json({"id": name, "sha": found.head, "private": found.private, "tags": []})

    def tree(self, body, query, name, revision):
        if not (found := self.at_revision(name, revision)):
            return
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "index"}]
        for path, content in sorted(found.files.items()):
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_name(content)}
            if path.endswith(LARGE):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        first = int(query.get("cursor", ["0"])[0])
        last = first + self.hub.page_size
        more = {}
        if last < len(entries):
            more["Link"] = (
                f'<{self.hub.url}{self.path.partition("?")[0]}?cursor={last}>; rel="next"'
            )
        self.send_json(entries[first:last], **more)

    def resolve(self, body, query, name, revision, path):
        if not (found := self.at_revision(name, revision)):
            return
        fault = self.hub.faults.get(path)
        if path not in found.files or (fault and fault.status == 404):
            return self.send_json({"error": "no"}, 404, X_Error_Code="EntryNotFound")
        if path.endswith(LARGE):
            return self.send(302, b"", Location=f"{self.hub.cdn}/cdn/{name}/{path}")
        self.content(found.files[path], self.hub.fault_of(path))

    def from_cdn(self, body, query, name, path):
        self.content(self.hub.repositories[name].files[path], self.hub.fault_of(path))

    def content(self, content: bytes, fault: Fault) -> None:
        """A file, from where the request's Range begins."""
        if fault.status:
            return self.send(fault.status, b"", Retry_After="0")
        content = content if fault.instead is None else fault.instead
        if fault.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        start, asked = self.request_note.start or 0, self.request_note.end
        if start >= len(content) and start:
            return self.send(416, b"", Content_Range=f"bytes */{len(content)}")
        end = min(len(content), len(content) if asked is None else asked)
        part = self.request_note.start is not None
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(end - start))
        if part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if fault.breaks is not None:
            end = min(end, start + fault.breaks)
        self.wfile.write(content[start:end])
        self.request_note.sent = len(content[start:end])
        if fault.breaks is not None:
            if fault.stalls:
                self.hub.stalled.set()
                self.hub.closing.wait(60)
            self.close_connection = True

    def create(self, body, query):
        if not self.request_note.token:
            return self.send_json({"error": "Invalid username or password."}, 401)
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/datasets/{name}"}
        if name in self.hub.repositories:
            return self.send_json(answer, 409)
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.add(name, {}, private=private)
        self.send_json(answer)

    def validate(self, body, query):
        import yaml

        text = json.loads(body)["content"]
        try:
            yaml.safe_load(text.split("---\n")[1])
        except (yaml.YAMLError, IndexError) as error:
            return self.send_json({"errors": [{"message": str(error)}]}, 400)
        self.send_json({"errors": [], "warnings": []})

    def preupload(self, body, query, name):
        if not (found := self.repository(name)):
            return
        answer = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE)
            entry = {"path": file["path"], "shouldIgnore": False}
            entry["uploadMode"] = "lfs" if large else "regular"
            if (content := found.files.get(file["path"])) is not None:
                entry["oid"] = hashlib.sha256(content).hexdigest() if large else git_name(content)
            answer.append(entry)
        self.send_json({"files": answer})

    def batch(self, body, query, name):
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.storage:
                entry["actions"] = {"upload": {"href": f"{self.hub.cdn}/store/{asked['oid']}"}}
            objects.append(entry)
        self.send_json({"transfer": "basic", "objects": objects})

    def store(self, body, query, oid):
        fault = self.hub.fault_of("store")
        if fault.status:
            return self.send(fault.status, b"")
        if fault.stalls:
            self.hub.stalled.set()
            self.hub.closing.wait(5)
        if hashlib.sha256(body).hexdigest() != oid:
            return self.send(400, b"")
        self.hub.storage[oid] = body
        self.send(200, b"")

    def commit(self, body, query, name):
        if not (found := self.repository(name)):
            return
        if not self.request_note.token:
            return self.send_json({"error": "no"}, 403)
        if not self.hub.commit_allowed:
            return self.send(500, b"")
        self.hub.commit_allowed -= 1
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                found.commits.append(value["summary"] + value["description"])
            elif entry["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del found.files[value["path"]]
            elif entry["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.storage[value["oid"]]
        url = f"{self.hub.url}/datasets/{name}/commit/{found.head}"
        self.send_json({"commitUrl": url, "commitOid": found.head, "success": True})

    def log_message(self, *_):
        pass


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"GET /api/datasets/{NAME}/revision/(.+)", "info"),
    (rf"GET /api/datasets/{NAME}/tree/([^/]+)", "tree"),
    (rf"GET /api/datasets/{NAME}", "info"),
    (rf"(?:GET|HEAD) /datasets/{NAME}/resolve/([^/]+)/(.+)", "resolve"),
    (rf"GET /cdn/{NAME}/(.+)", "from_cdn"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"POST /api/datasets/{NAME}/preupload/main", "preupload"),
    (rf"POST /datasets/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /store/(\w+)", "store"),
    (rf"POST /api/datasets/{NAME}/commit/main", "commit"),
)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that serves on 127.0.0.1 until the block ends."""
    hub = Hub()
    with contextlib.ExitStack() as stack:
        for origin in ("url", "cdn"):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            server.hub = hub
            setattr(hub, origin, f"http://127.0.0.1:{server.server_port}")
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        stack.callback(hub.closing.set)
        yield hub
