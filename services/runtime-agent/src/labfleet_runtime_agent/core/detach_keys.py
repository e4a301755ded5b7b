"""Finding the keys that detach in what a client types."""

DEFAULT = b"\x10\x11"
"""ctrl-p, ctrl-q."""


class DetachKeys:
    """Watches for one sequence of keys, also over several reads.

    A begun sequence is held back; if it goes on otherwise it is handed on after all. As with docker's
    own parser, the key that ends a begun sequence does not begin the next.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys or DEFAULT
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be handed on, and whether the client wants to detach."""
        passed = bytearray()
        for key in data:
            if key == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._seen]
            passed.append(key)
            self._seen = 0
        return bytes(passed), False
