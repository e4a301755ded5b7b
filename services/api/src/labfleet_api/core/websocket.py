"""WebSocket (RFC 6455): the handshake's answer, and frames from bytes and to bytes."""

import base64
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from labfleet_proto.errors import InvalidRequestError

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST = 1 << 20
_LONGEST_CONTROL = 125
_FIN, _MASKED, _RESERVED = 0x80, 0x80, 0x70


class Opcode(IntEnum):
    """Kinds of frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True)
class Frame:
    """One frame of a client, unmasked."""

    opcode: Opcode
    payload: bytes


class ProtocolError(Exception):
    """The client does not speak WebSocket; `code` is what the close frame says."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def handshake(headers: Mapping[str, str]) -> list[str]:
    """Return the lines of the answer's head. Raises InvalidRequestError."""
    key = headers.get("sec-websocket-key", "")
    is_upgrade = headers.get("upgrade", "").lower() == "websocket"
    if not is_upgrade or "upgrade" not in headers.get("connection", "").lower():
        raise InvalidRequestError("not a websocket handshake: Upgrade: websocket is missing")
    if headers.get("sec-websocket-version") != "13" or not key:
        raise InvalidRequestError("not a websocket handshake: version 13 and a key are needed")
    digest = hashlib.sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
    ]
    offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
    if offered[0]:
        lines.append(f"Sec-WebSocket-Protocol: {offered[0]}")
    return lines


def packed(opcode: Opcode, payload: bytes) -> bytes:
    """A server's frame: whole and unmasked."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FIN | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FIN | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, 127, size)
    return head + payload


class FrameReader:
    """Takes frames off a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete now. Raises ProtocolError."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        data = self._buffer
        if len(data) < 2:
            return None
        try:
            opcode = Opcode(data[0] & 0x0F)
        except ValueError as exc:
            raise ProtocolError(1002, "unknown opcode") from exc
        if data[0] & _RESERVED or not data[1] & _MASKED:
            raise ProtocolError(1002, "reserved bits are set, or a frame is not masked")
        size, start = data[1] & 0x7F, 2
        if opcode >= Opcode.CLOSE and (size > _LONGEST_CONTROL or not data[0] & _FIN):
            raise ProtocolError(1002, "a control frame is too long or in parts")
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if size > _LONGEST:
            raise ProtocolError(1009, f"a frame is longer than {_LONGEST} bytes")
        end = start + 4 + size
        if len(data) < end:
            return None
        payload = _unmasked(bytes(data[start + 4 : end]), bytes(data[start : start + 4]))
        del data[:end]
        return Frame(opcode, payload)


def _unmasked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
