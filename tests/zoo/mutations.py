"""Layers by chance: members of the zoo joined, their headers bent, their bytes changed, packed and cut."""

import gzip
import random
import tarfile

from tests.zoo.animals import CAGES, Cage
from tests.zoo.making import BLOCK, END, Member, entry, pax, records, summed, tar, zstd

_NAMES = [
    "a", "b", "a/b", "a/b/c", "./a", "/a", "..", "../out", "a/../b", "link/x", ".wh.a", "a/.wh..wh..opq", ".wh..",
    ".wh...", "a/", "é", "x" * 120, "y" * 256, "d/" * 60 + "e", "d/" * 130, "", ".", "/", "dev/null", "\udcff", "a\nb",
]  # fmt: skip
_TARGETS = [
    "a",
    "/outside",
    "../outside",
    "../../outside/file",
    ".",
    "..",
    "/",
    "",
    "link",
    "a/b",
    "/proc/self/root",
]
_KINDS = [b"0", b"0", b"0", b"5", b"5", b"2", b"2", b"1", b"1", b"6", b"3", b"4", b"7", b"Z", b"\0"]
_KEYS = [
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset", b"GNU.sparse.map", b"GNU.sparse.size",
    b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.realsize", b"GNU.sparse.name", b"GNU.sparse.offset",
    b"GNU.sparse.numbytes", b"SCHILY.xattr.user.a", b"SCHILY.xattr.security.capability",
    b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.user.", b"",
]  # fmt: skip
_VALUES = [
    b"", b"0", b"1", b"-1", b"4", b"1.5", b"nan", b"1e400", b"9" * 30, b"../out", b"/outside/file", b"a", b"link/x",
    b"BINARY", b"0,4", b"0,4,8,4", b"4,-4", b"1099511627776", b"\0", b"\xff\xfe", b"x" * 5000,
]  # fmt: skip
_NUMBERS = [
    b"7777777",
    b"0000000",
    b"\x80" + b"\0" * 10 + b"\1",
    b"\xff" * 12,
    b"99999999999",
    b"-1",
    b"",
    b"0000001000\0",
]
_PLACES = {
    100: 8,
    108: 8,
    116: 8,
    124: 12,
    136: 12,
    156: 1,
    157: 100,
    257: 8,
    329: 8,
    345: 155,
    386: 24,
    482: 1,
    483: 12,
}
_MOST_BYTES = 1 << 18
_TOO_LARGE = {"Bombs"}


def _small(held: Cage) -> list[bytes]:
    return [data for make in held.values() if len(data := make()) <= _MOST_BYTES]


_SEEDS = [data for cage, held in CAGES.items() if cage not in _TOO_LARGE for data in _small(held)]


def layer(chance: random.Random) -> bytes:
    """A layer, the same one for the same state of chance."""
    data = bytearray(_joined(chance))
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        _bend(data, chance)
    for _ in range(chance.choice([0, 0, 0, 1, 3])):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    packed = bytearray(chance.choice([bytes, bytes, bytes, gzip.compress, zstd])(bytes(data)))
    if chance.random() < 0.1 and packed:
        packed[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
    if chance.random() < 0.15 and packed:
        del packed[chance.randrange(len(packed)) :]
    return bytes(packed)


def _joined(chance: random.Random) -> bytes:
    """Made members, extensions between them, and layers of the zoo without their ends."""
    parts = []
    for _ in range(chance.randint(1, 6)):
        match chance.randrange(4):
            case 0:
                parts.append(chance.choice(_SEEDS).removesuffix(END))
            case 1:
                pairs = [
                    (chance.choice(_KEYS), chance.choice(_VALUES))
                    for _ in range(chance.randint(1, 4))
                ]
                parts.append(pax(*pairs, kind=chance.choice([b"x", b"x", b"g", b"X"])))
                parts.append(_made(chance))
            case _:
                parts.append(_made(chance))
    if chance.random() < 0.1:
        parts.insert(chance.randrange(len(parts)), bytes(BLOCK))
    return b"".join(parts) + (END if chance.random() < 0.9 else b"")


def _made(chance: random.Random) -> bytes:
    form = chance.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    try:
        return tar(_member(chance), form=form).removesuffix(END)
    except (ValueError, OverflowError, UnicodeError):
        return b""


def _member(chance: random.Random) -> Member:
    kind = chance.choice(_KINDS)
    data = chance.randbytes(chance.choice([0, 1, 511, 512, 513, 3000])) if kind in b"07" else b""
    return entry(
        chance.choice(_NAMES),
        kind,
        data,
        linkname=chance.choice(_TARGETS),
        mode=chance.choice([0, 0o644, 0o755, 0o6777, 0o7777]),
        uid=chance.choice([0, 1000, 70_000, 2_000_000]),
        mtime=chance.choice([0, 1, 1_700_000_000, -5, 2.5]),
    )


def _bend(data: bytearray, chance: random.Random) -> None:
    """Change a field of a block that may be a header; mostly its sum is mended."""
    blocks = len(data) // BLOCK
    if not blocks:
        return
    start = chance.randrange(blocks) * BLOCK
    place = chance.choice(list(_PLACES))
    width = _PLACES[place]
    value = chance.choice(
        [chance.choice(_NUMBERS), chance.choice(_KINDS), chance.choice(_TARGETS).encode("utf-8", "surrogateescape"),
         chance.choice([b"x", b"g", b"L", b"K", b"S"]), records([(chance.choice(_KEYS), chance.choice(_VALUES))])]
    )  # fmt: skip
    data[start + place : start + place + width] = value[:width].ljust(width, b"\0")
    if chance.random() < 0.85:
        data[start : start + BLOCK] = summed(bytes(data[start : start + BLOCK]))
