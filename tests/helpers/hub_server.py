"""A local server with the protocol of the Hugging Face hub, for the hub's own client."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    files: Mapping[str, bytes]
    requested: list[str]
    repository: str  # such as datasets/owner/name, or owner/name for a model

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        asked = re.findall(r"paths=([^&]+)", self.rfile.read(length).decode())
        entries = [self._entry(name) for name in map(unquote, asked) if name in self.files]
        self._send(json.dumps(entries).encode(), body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        kind = "" if self.repository.startswith("datasets/") else "models/"
        if path.startswith(f"/api/{kind}{self.repository}/tree/"):
            self._send_tree(path.partition("/tree/")[2].partition("/")[2], body=body)
        elif path == f"/api/{kind}{self.repository}" or path.startswith(
            f"/api/{kind}{self.repository}/revision/"
        ):
            siblings = [{"rfilename": name} for name in self.files]
            name = self.repository.removeprefix("datasets/")
            info = {"id": name, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), body=body)
        elif path.startswith(f"/{self.repository}/resolve/"):
            name = path.partition("/resolve/")[2].partition("/")[2]
            if name in self.files:
                self.requested.append(name)
                self._send(self.files[name], body=body, name=name)
            else:
                self._refuse("EntryNotFound")
        else:
            self._refuse("RepoNotFound")

    def _send_tree(self, folder: str, *, body: bool) -> None:
        prefix = f"{folder}/" if folder else ""
        below = [name for name in self.files if name.startswith(prefix)]
        if folder and not below:
            self._refuse("EntryNotFound")
            return
        if "recursive=true" not in self.path.lower():
            heads = {name.removeprefix(prefix).partition("/")[::2] for name in below}
            folders = sorted({head for head, rest in heads if rest})
            tree = [{"type": "directory", "path": prefix + name, "oid": "0"} for name in folders]
            tree += [self._entry(prefix + head) for head, rest in sorted(heads) if not rest]
        else:
            tree = [self._entry(name) for name in below]
        self._send(json.dumps(tree).encode(), body=body)

    def _entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        return {
            "type": "file",
            "path": name,
            "oid": hashlib.sha1(content).hexdigest(),
            "size": len(content),
        }

    def _send(self, content: bytes, *, body: bool, name: str = "") -> None:
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        size = len(content)
        if part and name:
            start, end = int(part[1]), min(int(part[2] or size - 1), size - 1)
            content = content[start : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        if name:
            self.send_header("ETag", f'"{hashlib.sha1(self.files[name]).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve_hub(repository: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve one repository; yields the address, and the files that clients requested.

    Args:
        repository: Such as ``datasets/owner/name``, or ``owner/name`` for a model.
        files: Contents by path.
    """
    requested: list[str] = []
    handler = type(
        "Handler",
        (_Handler,),
        {"files": files, "requested": requested, "repository": repository},
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requested
        server.shutdown()
