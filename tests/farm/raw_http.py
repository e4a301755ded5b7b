"""HTTP on a plain socket: what client libraries hide, such as heads, half-closes and aborted streams."""

import base64
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LIMIT_S = 60.0


@dataclass
class Answer:
    """The head of an answer, and the connection behind it."""

    status: int
    headers: dict[str, str]
    link: socket.socket
    rest: bytes = b""
    _frames: list[tuple[int, bytes]] = field(default_factory=list)

    def read(self, size: int = 65_536) -> bytes:
        """Read raw bytes; none at the end."""
        if self.rest:
            data, self.rest = self.rest[:size], self.rest[size:]
            return data
        return self.link.recv(size)

    def all(self) -> bytes:
        """Read until the end of the connection."""
        got = b""
        while data := self.read():
            got += data
        return got

    def until(self, wanted: bytes) -> bytes:
        """Read until something has come."""
        got = b""
        while wanted not in got:
            data = self.read()
            assert data, got
            got += data
        return got

    def body(self) -> Any:
        """The JSON of an answer with a length, or of one that ends with the connection."""
        length = int(self.headers.get("content-length", 1 << 30))
        got = b""
        while len(got) < length and (data := self.read()):
            got += data
        return json.loads(got) if got else None

    def exactly(self, size: int) -> bytes:
        """Read as many bytes."""
        got = b""
        while len(got) < size:
            data = self.read(size - len(got))
            assert data, got
            got += data
        return got

    def frame(self) -> tuple[int, bytes]:
        """Read one frame of docker's multiplexed stream."""
        kind, size = struct.unpack(">BxxxI", self.exactly(8))
        return kind, self.exactly(size)

    def message(self) -> tuple[int, bytes]:
        """Read one unmasked WebSocket frame: opcode and payload."""
        first, size = self.exactly(2)
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.exactly(8), "big")
        return first & 15, self.exactly(size)

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.link.sendall(data)

    def say(self, opcode: int, payload: bytes) -> None:
        """Send one masked WebSocket frame of at most 125 bytes."""
        key = os.urandom(4)
        data = bytes(byte ^ key[number % 4] for number, byte in enumerate(payload))
        self.link.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + key + data)


@contextlib.contextmanager
def asked(
    path: Path,
    method: str,
    target: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Iterator[Answer]:
    """Send a request to the socket at `path`; yields its answer, the body unread."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "docker", "Content-Length": str(len(data))} | (headers or {})
    if body is not None:
        lines.setdefault("Content-Type", "application/json")
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_LIMIT_S)
        link.connect(str(path))
        link.sendall(head.encode() + b"\r\n" + data)
        got = b""
        while b"\r\n\r\n" not in got:
            more = link.recv(65_536)
            assert more, got
            got += more
        top, _, rest = got.partition(b"\r\n\r\n")
        status, *fields = top.decode().split("\r\n")
        pairs = (each.split(": ", 1) for each in fields)
        found = {name.lower(): value for name, value in pairs}
        yield Answer(int(status.split()[1]), found, link, rest)


UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
