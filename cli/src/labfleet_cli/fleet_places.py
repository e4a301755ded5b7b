"""Where the fleets of one machine lie side by side: kernel names, ports, underlays, user ids.

Each has a best place by its name, and others should that one be taken.
"""

import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

DEFAULT_FLEET = "labfleet"
DEFAULT_PORT_BASE = 7400
FLEETS_OF_UIDS = 10
"""Side by side; all ids stay below 2^31, the greatest group of `ping_group_range`."""
_PORT_PLACES = 240
_UNDERLAYS = 254
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def tag_of(name: str) -> str:
    """Prefix of kernel names: `lf`, for other fleets and four characters of the name's hash."""
    if name == DEFAULT_FLEET:
        return "lf"
    rest, code = zlib.crc32(name.encode()), ""
    for _ in range(4):
        rest, digit = divmod(rest, len(_DIGITS))
        code += _DIGITS[digit]
    return f"lf{code}"


def port_bases(name: str) -> Iterator[int]:
    """First of the fleet's ports, best first: 7400 for the default, 240 places from 20000 on."""
    if name == DEFAULT_FLEET:
        yield DEFAULT_PORT_BASE
    first = zlib.crc32(name.encode())
    for number in range(_PORT_PLACES):
        yield 20_000 + (first + number) % _PORT_PLACES * 50


def underlays(name: str) -> Iterator[int]:
    """Third octet of the underlay, best first: 0 for the default, 1 to 254."""
    if name == DEFAULT_FLEET:
        yield 0
    first = zlib.crc32(name.encode()[::-1])
    for number in range(_UNDERLAYS):
        yield 1 + (first + number) % _UNDERLAYS


def near_underlays(taken: AbstractSet[int]) -> set[int]:
    """Underlays that are taken, or whose fleet would share user ids with one that is."""
    blocks = {number % FLEETS_OF_UIDS for number in taken}
    return {number for number in range(_UNDERLAYS + 1) if number % FLEETS_OF_UIDS in blocks}


def free_place(places: Iterator[int], taken: AbstractSet[int]) -> int:
    """The first place that no other fleet of the machine has; the best one if all are taken."""
    best = next(places)
    return next((each for each in (best, *places) if each not in taken), best)
