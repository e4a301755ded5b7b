"""Registries of others: Debian's docker-registry on loopback ports, and a way to it that breaks."""

import contextlib
import http.client
import http.server
import io
import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from tests.farm.fleet import free_port, until

PROGRAM = "docker-registry"


@dataclass
class OtherRegistry:
    """A registry process of a test's own."""

    folder: Path
    user: str = ""
    password: str = ""
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def host(self) -> str:
        """As names begin with it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For `labfleet mirror add`."""
        return f"http://{self.host}"

    def start(self) -> None:
        """Start, on what an earlier life has left."""
        self.folder.mkdir(exist_ok=True)
        auth = ""
        if self.user:
            words = ["htpasswd", "-Bbn", self.user, self.password]
            made = subprocess.run(words, capture_output=True, check=True).stdout
            (self.folder / "htpasswd").write_bytes(made)
            auth = f"auth: {{htpasswd: {{realm: other, path: {self.folder / 'htpasswd'}}}}}\n"
        config = self.folder / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: warn}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder / 'data'}}}, "
            "delete: {enabled: true}}\n"
            f"http: {{addr: '{self.host}'}}\n{auth}"
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "serve", str(config)], stdout=log, stderr=log)
        until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v2/").status_code in (200, 401)
        return False

    def stop(self) -> None:
        """Kill it; again is nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def push(self, archive: Path, name: str, named: str = "") -> None:
        """Put an image of an archive of docker's, maybe the one `named` there, under a name with its tag."""
        login = ["--dest-creds", f"{self.user}:{self.password}"] if self.user else []
        words = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *login]
        target = f"docker://{self.host}/{name}"
        done = subprocess.run(
            [*words, f"docker-archive:{archive}{named and ':' + named}", target],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def other_registry(folder: Path, user: str = "", password: str = "") -> Iterator[OtherRegistry]:
    """A registry for the length of a block."""
    made = OtherRegistry(folder, user, password)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def archive_of(path: Path, layers: list[bytes], architecture: str = "amd64") -> Path:
    """An image in the form of `docker save`; each layer is a file of those bytes."""
    tars = []
    for number, data in enumerate(layers):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as tar:
            _add(tar, f"data{number}", data)
        tars.append(held.getvalue())
    document: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/data0"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{sha256(each).hexdigest()}" for each in tars],
        },
    }
    config = json.dumps(document).encode()
    name = f"{sha256(config).hexdigest()}.json"
    names = [f"layer{number}.tar" for number in range(len(tars))]
    index = json.dumps([{"Config": name, "RepoTags": None, "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        _add(archive, name, config)
        for each, data in zip(names, tars, strict=True):
            _add(archive, each, data)
        _add(archive, "manifest.json", index)
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755
    tar.addfile(entry, io.BytesIO(data))


class BrokenWay:
    """Leads to a registry, but ends the first answers with large blobs in the middle of them."""

    def __init__(self, target: OtherRegistry, cut_after: int, *, is_stalling: bool = False) -> None:
        self.cuts = 0
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and range."""
        way = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _lead(self) -> None:
                ranged = self.headers.get("Range", "")
                way.requests.append((self.command, self.path, ranged))
                link = http.client.HTTPConnection(target.host, timeout=20)
                passed = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("accept", "authorization", "range")
                }
                link.request(self.command, self.path, headers=passed)
                answer = link.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "date"):
                        self.send_header(name, value)
                self.end_headers()
                body = answer.read()
                link.close()
                if "/blobs/" in self.path and len(body) > cut_after:
                    way.cuts += 1
                    self.wfile.write(body[:cut_after])
                    self.wfile.flush()
                    if is_stalling:
                        time.sleep(30)
                    self.close_connection = True
                    return
                self.wfile.write(body)

            do_GET = do_HEAD = _lead  # noqa: N815 - its names

            def log_message(self, *_words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Lead nowhere any more."""
        self._server.shutdown()
        self._server.server_close()
