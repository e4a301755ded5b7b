"""A container's output as it was printed, out of its log: for who was attached and was cut off."""

from collections.abc import Callable, Iterable

from labfleet_proto.streams import HeldLine

_STREAMS = {b"stdout": 1, b"stderr": 2}


class RawOutput:
    """Turns lines of the monitor's file back into what was printed, without what the client has.

    The monitor ends a last line that has no end of its own as if it had one. So the end of a line that
    comes alone, after its text, is held until more follows it.
    """

    def __init__(
        self,
        skipped: dict[int, int],
        wanted: dict[int, bool],
        encode: Callable[[int, bytes], bytes],
    ) -> None:
        self._left = dict(skipped)
        self._wanted = wanted
        self._encode = encode
        self._is_partial = {1: False, 2: False}
        self._is_end_held = {1: False, 2: False}

    @property
    def is_even(self) -> bool:
        """Whether all that was taken was given."""
        return not any(self._is_end_held.values())

    @property
    def has_skipped(self) -> bool:
        """Whether all that the client has was passed."""
        return not any(self._left.values())

    def held(self) -> tuple[HeldLine, ...]:
        """Nothing is held that a position would tell."""
        return ()

    def counts(self, line: bytes) -> bool | None:
        """Who was attached has no last lines to look for."""
        return None if line else False

    def write(self, lines: Iterable[bytes]) -> bytes:
        """Return what these lines of the monitor's file say, without their line feeds."""
        pieces: list[tuple[int, bytes]] = []
        for line in lines:
            parts = line.split(b" ", 3)
            kind = _STREAMS.get(parts[1]) if len(parts) == 4 else None
            if kind is None or not self._wanted[kind]:
                continue
            if self._is_end_held[kind]:
                self._is_end_held[kind] = False
                pieces.append((kind, b"\n"))
            if parts[2] == b"P":
                pieces.append((kind, parts[3]))
            elif not parts[3] and self._is_partial[kind]:
                self._is_end_held[kind] = True
            else:
                pieces.append((kind, parts[3] + b"\n"))
            self._is_partial[kind] = parts[2] == b"P"
        return b"".join(self._encode(kind, data) for kind, data in self._fresh(pieces))

    def _fresh(self, pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """What the client has not, neighbours of one stream together."""
        found: list[tuple[int, list[bytes]]] = []
        for kind, piece in pieces:
            gone = min(self._left.get(kind, 0), len(piece))
            if gone:
                self._left[kind] -= gone
            data = piece[gone:]
            if not data:
                continue
            if found and found[-1][0] == kind:
                found[-1][1].append(data)
            else:
                found.append((kind, [data]))
        return [(kind, b"".join(parts)) for kind, parts in found]
