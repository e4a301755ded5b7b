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
    base, sign, offset = name[:5], name[5:6], name[6:]
    if (base, sign) in (("RTMIN", "+"), ("RTMAX", "-")) and _DIGITS.fullmatch(offset):
        first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
        number = first + int(offset) if sign == "+" else last - int(offset)
        if first <= number <= last:
            return number
        raise InvalidRequestError(f"Invalid signal: {given}")
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError as exc:
        raise InvalidRequestError(f"Invalid signal: {given}") from exc
