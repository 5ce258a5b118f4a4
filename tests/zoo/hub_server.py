"""A stand-in for the Hugging Face hub: a local server with the part of its interface that uploads and downloads use."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


class Hub:
    """
    The server. ``with Hub() as hub`` runs it.

    :ivar repositories: The content of each file, by repository and path
    :ivar messages: The messages of all commits
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: Any) -> None:
        self.answer(json.dumps(value).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main|/tree/\w+)?", path):
            files = self.hub.repositories.get(match[1])
            if files is None:
                self.answer(b"", 404, X_Error_Code="RepoNotFound")
            elif (match[2] or "").startswith("/tree"):
                listed = [{"type": "file", "path": name, "size": len(data), "oid": oid(data)} for name, data in files.items()]
                self.json(listed)
            else:
                siblings = [{"rfilename": name} for name in files]
                self.json({"id": match[1], "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/\w+/(.+)", path):
            data = self.hub.repositories.get(match[1], {}).get(match[2])
            if data is None:
                self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                self.answer(data, ETag=f'"{oid(data)}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(b"", 404)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            created = json.loads(body)
            repository = f"{created['organization']}/{created['name']}"
            self.hub.repositories.setdefault(repository, {})
            self.json({"url": f"{self.hub.url}/{repository}", "name": repository})
        elif self.path == "/api/validate-yaml":
            self.json({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.json({"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.split("?")[0]):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.hub.messages.append(line["value"]["summary"])
                else:
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.repositories[match[1]][line["value"]["path"]] = content
            self.json({"commitUrl": f"{self.hub.url}/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            self.answer(b"", 404)

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data


def oid(data: bytes) -> str:
    """The name of a file's content."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
