"""WebSocket frames and handshake (RFC 6455)."""

import pytest

from labfleet_api.core.websocket import Frame, FrameReader, Opcode, ProtocolError, handshake, packed
from labfleet_proto.errors import InvalidRequestError

GOOD = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def masked(opcode: int, payload: bytes, fin: int = 0x80) -> bytes:
    key = b"\x01\x02\x03\x04"
    data = bytes(byte ^ key[number % 4] for number, byte in enumerate(payload))
    size = len(payload)
    if size < 126:
        head = bytes([fin | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([fin | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([fin | opcode, 0xFF]) + size.to_bytes(8, "big")
    return head + key + data


def test_the_sample_of_the_specification() -> None:
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in handshake(GOOD)


def test_the_first_protocol_that_is_offered_is_taken() -> None:
    lines = handshake(GOOD | {"sec-websocket-protocol": "tty, other"})
    assert lines[-1] == "Sec-WebSocket-Protocol: tty"


@pytest.mark.parametrize("missing", GOOD)
def test_a_handshake_that_lacks_something_is_refused(missing: str) -> None:
    with pytest.raises(InvalidRequestError):
        handshake({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_of_all_lengths_in_any_pieces(size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    data = masked(Opcode.BINARY, payload) + masked(Opcode.PING, b"p")
    for step in (1, 7, len(data)) if size < 1000 else (4096, len(data)):
        reader = FrameReader()
        found = []
        for start in range(0, len(data), step):
            found += reader.feed(data[start : start + step])
        assert found == [Frame(Opcode.BINARY, payload), Frame(Opcode.PING, b"p")]


@pytest.mark.parametrize(
    "data",
    [
        packed(Opcode.BINARY, b"unmasked"),
        b"\x83\x80",
        b"\xc2\x80",
        masked(Opcode.PING, b"x" * 126),
        masked(Opcode.CLOSE, b"", fin=0),
    ],
)
def test_what_breaks_the_rules_ends_the_stream(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        FrameReader().feed(data)
    assert caught.value.code == 1002


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError) as caught:
        FrameReader().feed(b"\x82\xff" + (1 << 40).to_bytes(8, "big"))
    assert caught.value.code == 1009


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65_536, 10)])
def test_a_servers_frame_is_whole_and_unmasked(size: int, head: int) -> None:
    data = packed(Opcode.BINARY, bytes(size))
    assert (data[0], len(data)) == (0x82, head + size)
