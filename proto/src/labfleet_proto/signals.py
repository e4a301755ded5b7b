"""Names and numbers of signals, as docker accepts them."""

import re
import signal

from labfleet_proto.errors import InvalidRequestError

_DIGITS = re.compile(r"[0-9]{1,5}")


def number_of(given: str) -> int:
    """Return the number of `SIGHUP`, `hup`, `1`, `RTMIN+3`. Raises InvalidRequestError."""
    if _DIGITS.fullmatch(given):
        number = int(given)
        if 1 <= number <= signal.SIGRTMAX:
            return number
        raise InvalidRequestError(f"Invalid signal: {given}")
    name = given.upper().removeprefix("SIG")
    if name.startswith("RTMIN+") and _DIGITS.fullmatch(name[6:]):
        return min(signal.SIGRTMIN + int(name[6:]), signal.SIGRTMAX)
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError as exc:
        raise InvalidRequestError(f"Invalid signal: {given}") from exc
