"""Keys that detach a client, in docker's notation: `ctrl-p,ctrl-q`, `a`, `DEL`."""

from labfleet_proto.errors import InvalidRequestError

_CONTROL = {f"ctrl-{chr(code + 96)}": code for code in range(1, 27)}
_CONTROL |= {"ctrl-@": 0, "ctrl-[": 27, "ctrl-\\": 28, "ctrl-]": 29, "ctrl-^": 30, "ctrl-_": 31}
_CONTROL["DEL"] = 127


def parse(text: str) -> bytes:
    """Return the codes of the keys; none for an empty text, which means docker's default.

    Raises InvalidRequestError for a key that there is not.
    """
    if not text:
        return b""
    codes = bytearray()
    for key in text.split(","):
        raw = key.encode()
        if len(raw) == 1:
            codes += raw
        elif key in _CONTROL:
            codes.append(_CONTROL[key])
        else:
            raise InvalidRequestError(f"Invalid detach keys ({text}) provided")
    return bytes(codes)
