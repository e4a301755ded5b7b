"""The archive zoo: what hostile and odd layers look like. What becomes of each stands in `docs/archive-zoo.md`."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.zoo.making import (
    BLOCK,
    END,
    Member,
    device,
    directory,
    entry,
    fifo,
    file,
    header,
    link,
    longname,
    padded,
    pax,
    skippable,
    sparse_gnu,
    summed,
    symlink,
    tar,
    wide_zstd,
    zeros,
    zstd,
)


@dataclass(frozen=True)
class Animal:
    """One layer, and what is odd about it."""

    name: str
    make: Callable[[], bytes]


Cage = dict[str, Callable[[], bytes]]


def of(*members: Member) -> Callable[[], bytes]:
    """A plain tar of members."""
    return lambda: tar(*members)


def raw(*parts: bytes) -> Callable[[], bytes]:
    """Blocks as they stand, and the end."""
    return lambda: b"".join(parts) + END


GOOD = (directory("etc"), file("etc/motd", b"hello"))
GOOD_TAR = tar(*GOOD)
BODY = header("f", size=4) + padded(b"mine")
DEEP = "/".join("d" * 100)
ESCAPES: Cage = {
    "`../x`": of(file("../x")),
    "`a/../../x`": of(file("a/../../x")),
    "`a/../x`, which stays inside": of(file("a/../x")),
    "`..` as a directory": of(directory("..")),
    "an absolute name": of(file("/etc/motd")),
    "slashes and dots, `//a/.//b`": of(file("//a/.//b")),
    "a backslash, `..\\x`": of(file("..\\x")),
    "a file below an absolute link made before": of(symlink("door", "/outside"), file("door/x")),
    "a file below a relative link made before": of(symlink("door", "../outside"), file("door/x")),
    "a file below a link to where something is": of(
        directory("usr/lib"), symlink("lib", "/usr/lib"), file("lib/x")
    ),
    "a file below a chain of links": of(
        directory("a/b"), symlink("a/b/up", "../../.."), symlink("door", "a/b/up"), file("door/x")
    ),
    "a file below a link to `/proc/self/root`": of(
        symlink("door", "/proc/self/root"), file("door/x")
    ),
    "a file below a loop of links": of(symlink("a", "b"), symlink("b", "a"), file("a/x")),
    "a file in place of a link": of(symlink("door", "/outside/file"), file("door")),
    "a directory in place of a link": of(symlink("door", "/outside"), directory("door"), file("door/x")),
    "the root as a link": of(symlink("/", "/outside"), file("x")),
    "the root as a file": of(file("./"), file("x")),
    "`../x` in a pax header": raw(pax((b"path", b"../x")), BODY),
    "`../x` as GNU's long name": raw(longname(b"../x"), BODY),
    "`../x` in the prefix field": raw(
        summed(header("x", at_257=b"ustar\x0000", at_345=b"..")[:BLOCK])
    ),
    "a NUL in a pax name": raw(pax((b"path", b"x\0../y")), BODY),
    "a NUL in a link's pax target": raw(pax((b"linkpath", b"x\0y")), header("l", tarfile.SYMTYPE)),
    "overlong UTF-8 for `../x`": raw(pax((b"path", b"\xc0\xae\xc0\xae\xc0\xafx")), BODY),
    "a name that is no UTF-8": raw(pax((b"path", b"caf\xe9")), BODY),
    "a fullwidth `\uff0e\uff0e\uff0fx`": of(file("\uff0e\uff0e\uff0fx")),
    "a newline and an escape in a name": of(file("a\n\x1b[31mb")),
}  # fmt: skip
LINKS: Cage = {
    "a symbolic link to anywhere": of(symlink("l", "/etc/shadow")),
    "a symbolic link without target": raw(header("l", tarfile.SYMTYPE)),
    "a symbolic link's target of 5000 bytes": of(symlink("l", "x" * 5000)),
    "a hard link": of(file("a"), link("b", "a")),
    "a hard link to an absolute name": of(file("a"), link("b", "/a")),
    "a hard link to `../outside/file`": of(link("b", "../outside/file")),
    "a hard link through a symbolic link": of(
        symlink("door", "../outside"), link("b", "door/file")
    ),
    "a hard link to a symbolic link": of(symlink("door", "/outside/file"), link("b", "door")),
    "a hard link to what comes later": of(link("b", "a"), file("a")),
    "a hard link to a file of a lower layer": of(link("b", "etc/passwd")),
    "a hard link to itself": of(file("a"), link("a", "a")),
    "a hard link to a directory": of(directory("a"), link("b", "a")),
    "a hard link with data": raw(BODY, header("g", tarfile.LNKTYPE, 4, at_157=b"f"), BODY),
    "a file that replaces one of two links": of(file("a", b"1"), link("b", "a"), file("a", b"2")),
    "links in pairs to each other": of(link("a", "b"), link("b", "a")),
}
NODES: Cage = {
    "a character device": of(device("null")),
    "a block device": of(device("sda", tarfile.BLKTYPE)),
    "a device in `dev/`": of(directory("dev"), device("dev/null")),
    "a device in `lib/udev/devices/`": of(directory("lib/udev/devices"), device("lib/udev/devices/null")),
    "a device in `dev/`, through a link": of(symlink("x", "dev"), directory("dev"), device("x/null")),
    "the device of a whiteout, 0/0": of(entry("gone", tarfile.CHRTYPE)),
    "a pipe": of(fifo("p")),
    "a file in place of a pipe": of(fifo("p"), file("p")),
    "a file below a pipe": of(fifo("p"), file("p/x")),
    "a socket, as some programs say `s`": raw(header("s", b"s")),
    "a contiguous file (type 7)": raw(header("f", tarfile.CONTTYPE, 4), padded(b"mine")),
    "an unknown type, Z": raw(header("f", b"Z")),
    "GNU's directory of a dump, D": raw(header("d", b"D")),
    "a volume's header, V": raw(header("v", b"V")),
    "set-user-id, of another owner": of(file("su", uid=33, mode=0o4755)),
}  # fmt: skip
WHITEOUTS: Cage = {
    "a whiteout": of(file("etc/.wh.motd", b"")),
    "a whiteout of a directory of this layer": of(directory("d"), file("d/x"), file(".wh.d", b"")),
    "a file after its whiteout": of(file(".wh.f", b""), file("f")),
    "a whiteout after its file": of(file("f"), file(".wh.f", b"")),
    "an opaque directory": of(directory("d"), file("d/.wh..wh..opq", b""), file("d/x")),
    "an opaque mark after a file": of(directory("d"), file("d/x"), file("d/.wh..wh..opq", b"")),
    "an opaque mark at the root": of(file(".wh..wh..opq", b"")),
    "an opaque mark in an absent directory": of(file("d/.wh..wh..opq", b"")),
    "a whiteout with data": of(file(".wh.f", b"data")),
    "a whiteout that is a directory": of(directory(".wh.f")),
    "a whiteout that is a link": of(symlink(".wh.f", "x")),
    "a whiteout that is a hard link": of(file("a"), link(".wh.f", "a")),
    "a whiteout through a link": of(symlink("door", "../outside"), file("door/.wh.file", b"")),
    "a whiteout of `.`": of(file("a/.wh..", b"")),
    "a whiteout of `..`": of(file("a/.wh...", b"")),
    "a whiteout of nothing, `.wh.`": of(file(".wh.", b"")),
    "a whiteout of a whiteout": of(file(".wh..wh.f", b"")),
    "aufs' `.wh..wh.plnk/`": of(directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file("f")),
    "aufs' `.wh..wh.aufs`": of(file(".wh..wh.aufs", b"")),
    "a hard link to a whiteout": of(file(".wh.f", b""), link("x", "f")),
    "a whiteout's name of 255 bytes": of(file(".wh." + "x" * 251, b"")),
}
DUPLICATES: Cage = {
    "a file twice": of(file("f", b"1"), file("f", b"22")),
    "a file over a directory": of(directory("d"), file("d/x"), file("d")),
    "a directory over a file": of(file("d"), directory("d"), file("d/x")),
    "a directory twice": of(directory("d", mode=0o700), file("d/x"), directory("d", mode=0o711)),
    "a symbolic link over a file": of(file("f"), symlink("f", "g")),
    "a symbolic link over a directory": of(directory("d"), file("d/x"), symlink("d", "/outside")),
    "a hard link over a file": of(file("a", b"1"), file("f", b"2"), link("f", "a")),
    "a hard link over a directory": of(file("a"), directory("d"), file("d/x"), link("d", "a")),
    "names that differ by dots only": of(file("a/f", b"1"), file("./a/./f", b"2")),
    "names that differ by case": of(file("f", b"1"), file("F", b"2")),
    "a child after its parent became a file": of(directory("d"), file("d"), file("d/x")),
}
BOMBS: Cage = {
    "2 GiB of zeros after the end, zstd": lambda: zeros(GOOD_TAR, 2 << 30, "zstd"),
    "a file of 2^62 bytes": raw(header("f", size=1 << 62)),
    "an unknown type at the root, of 2^62 bytes": raw(header("./", b"Z", 1 << 62)),
    "a file of 60 GiB without data": raw(header("f", size=60 << 30)),
    "a sparse file of 2^50 bytes": raw(sparse_gnu("f", [(0, b"x")], 1 << 50)),
    "a path of 129 names": of(file("/".join("d" * 129))),
    "a path of 100 names, 100 more through a link": of(
        directory(DEEP), symlink("l", DEEP), directory(f"l/{DEEP}")
    ),
    "a name of 255 bytes": of(file("x" * 255)),
    "a name of 256 bytes": of(file("x" * 256)),
    "a path of 5000 bytes": of(file("/".join(["x" * 200] * 25))),
    "a long name of 2 MiB": raw(longname(b"x" * (2 << 20)), BODY),
    "a long name of 3 GiB": raw(header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 3 << 30)),
    "an extended header of 2 MiB": raw(pax((b"comment", b"x" * (2 << 20))), BODY),
    "a thousand extended headers in a row": raw(pax((b"comment", b"x")) * 1000, BODY),
    "a thousand global headers in a row": raw(pax((b"comment", b"x"), kind=b"g") * 1000, BODY),
    "an attribute of 70 kB": raw(pax((b"SCHILY.xattr.user.a", b"x" * 70_000)), BODY),
    "zstd, a window of 8 MiB": lambda: wide_zstd(GOOD_TAR, 23),
    "zstd, a window of 2 GiB": lambda: wide_zstd(GOOD_TAR, 31),
}  # fmt: skip
MAP_10 = padded(b"2\n0\n4\n1048576\n4\n")


def sparse_10(table: bytes, real: bytes, data: bytes) -> Callable[[], bytes]:
    """GNU's sparse form 1.0: the map stands before the data."""
    keys = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"f"), (b"GNU.sparse.realsize", real))  # fmt: skip
    size = len(table) + len(data)
    return raw(pax(*keys), header("GNUSparseFile.0/f", size=size), padded(table + data))


def sparse_01(table: bytes, size: bytes, data: bytes) -> Callable[[], bytes]:
    """GNU's sparse form 0.1: the map is one record."""
    keys = ((b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", b"2"),
            (b"GNU.sparse.name", b"f"), (b"GNU.sparse.map", table))  # fmt: skip
    return raw(pax(*keys), header("x", size=len(data)), padded(data))


def sparse_00(pieces: list[tuple[bytes, bytes]], size: bytes, data: bytes) -> Callable[[], bytes]:
    """GNU's sparse form 0.0: a pair of records for each piece."""
    keys = [(b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", b"2")]
    for start, length in pieces:
        keys += [(b"GNU.sparse.offset", start), (b"GNU.sparse.numbytes", length)]
    return raw(pax(*keys), header("f", size=len(data)), padded(data))


SPARSE: Cage = {
    "GNU's old form": raw(sparse_gnu("f", [(0, b"head"), (1 << 20, b"tail")], (1 << 20) + 4)),
    "GNU's old form, only a hole": raw(sparse_gnu("f", [(1 << 20, b"")], 1 << 20)),
    "GNU's old form, pieces that overlap": raw(
        sparse_gnu("f", [(0, b"x" * 600), (100, b"y" * 600)], 1000)
    ),
    "GNU's old form, a piece beyond the end": raw(sparse_gnu("f", [(4096, b"tail")], 100)),
    "GNU's old form, a map that goes on and ends": raw(
        header("f", tarfile.GNUTYPE_SPARSE, 0, at_482=b"\1")
    ),
    "pax 0.0": sparse_00([(b"0", b"4"), (b"1048576", b"4")], b"1048580", b"headtail"),
    "pax 0.1": sparse_01(b"0,4,1048576,4", b"1048580", b"headtail"),
    "pax 0.1, a map without numbers": sparse_01(b"0,x", b"10", b"headtail"),
    "pax 0.1, negative offsets": sparse_01(b"-4,4,0,4", b"10", b"headtail"),
    "pax 0.1, more than there is": sparse_01(b"0,4000", b"4000", b"headtail"),
    "pax 1.0": sparse_10(MAP_10, b"1048580", b"headtail"),
    "pax 1.0, a map that never ends": sparse_10(b"9" * 600, b"10", b"headtail"),
    "pax 1.0, a million pieces announced": sparse_10(
        padded(b"1000000\n0\n4\n"), b"10", b"headtail"
    ),
    "pax 1.0, a size without sense": sparse_10(MAP_10, b"x", b"headtail"),
}
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
TRICKS: Cage = {
    "a size in pax, less than the header's": raw(pax((b"size", b"2")), BODY),
    "a size in pax, more than there is": raw(pax((b"size", b"999999")), BODY),
    "a size in pax, negative": raw(pax((b"size", b"-5")), BODY),
    "a path in pax": raw(pax((b"path", b"other")), BODY),
    "a path in pax, twice": raw(pax((b"path", b"one"), (b"path", b"two")), BODY),
    "an empty path in pax": raw(pax((b"path", b"")), BODY),
    "a path in a global header": raw(pax((b"path", b"other"), kind=b"g"), BODY),
    "git's global header, a comment": raw(pax((b"comment", b"0123"), kind=b"g"), BODY),
    "an extended header for nothing": raw(pax((b"path", b"x"))),
    "a record whose length is wrong": raw(header("pax", b"x", 12), padded(b"99 path=x\n")),
    "a record without an equals sign": raw(header("pax", b"x", 8), padded(b"8 pathx\n")),
    "a capability": raw(pax((b"SCHILY.xattr.security.capability", CAPABILITY)), BODY),
    "a capability without sense": raw(pax((b"SCHILY.xattr.security.capability", b"x")), BODY),
    "an attribute of a user": raw(pax((b"SCHILY.xattr.user.a", b"b")), BODY),
    "`trusted.overlay.opaque`": raw(
        pax((b"SCHILY.xattr.trusted.overlay.opaque", b"y")), header("d", tarfile.DIRTYPE)
    ),
    "`trusted.overlay.redirect`": raw(
        pax((b"SCHILY.xattr.trusted.overlay.redirect", b"/etc")), header("d", tarfile.DIRTYPE)
    ),
    "`user.overlay.opaque`": raw(
        pax((b"SCHILY.xattr.user.overlay.opaque", b"y")), header("d", tarfile.DIRTYPE)
    ),
    "`security.selinux`": raw(pax((b"SCHILY.xattr.security.selinux", b"u")), BODY),
    "`system.posix_acl_access`": raw(pax((b"SCHILY.xattr.system.posix_acl_access", b"x")), BODY),
    "a time before 1970": raw(pax((b"mtime", b"-86400.5")), BODY),
    "a time without end": raw(pax((b"mtime", b"inf")), BODY),
    "a time in the year 9999": raw(pax((b"mtime", b"253370764800")), BODY),
    "an owner of 2^32-2": raw(pax((b"uid", b"4294967294")), BODY),
    "an owner of 2^32-1": raw(pax((b"uid", b"4294967295")), BODY),
    "an owner of -1": raw(pax((b"uid", b"-1")), BODY),
    "an owner that is no number": raw(pax((b"uid", b"root")), BODY),
    "a size in base 256, negative": raw(header("f", at_124=b"\xff" * 12)),
    "a mode with all bits": raw(header("f", at_100=b"7777777\0")),
}  # fmt: skip
CUT = tar(directory("etc"), file("etc/motd", b"x" * 1500), file("last"))


def cut(data: bytes, size: int) -> Callable[[], bytes]:
    return lambda: data[:size]


TRUNCATED: Cage = {
    "nothing at all": lambda: b"",
    "one byte": lambda: b"x",
    "in the first header": cut(CUT, 300),
    "in a later header": cut(CUT, BLOCK + 100),
    "after a header": cut(CUT, 2 * BLOCK),
    "in a file": cut(CUT, 2 * BLOCK + 700),
    "in a file's padding": cut(CUT, 2 * BLOCK + 1510),
    "between two members": cut(CUT, 5 * BLOCK),
    "in an extended header": cut(pax((b"path", b"x" * 900)), BLOCK + 300),
    "after an extended header": cut(pax((b"path", b"x")), 2 * BLOCK),
    "in a long name": cut(longname(b"x" * 900), BLOCK + 300),
    "without the blocks of zeros": cut(GOOD_TAR, len(GOOD_TAR) - 2 * BLOCK),
    "with one block of zeros": cut(GOOD_TAR, len(GOOD_TAR) - BLOCK),
    "gzip, in its header": cut(gzip.compress(CUT), 6),
    "gzip, in its data": cut(gzip.compress(CUT), 60),
    "gzip, in its checksum": cut(gzip.compress(CUT, mtime=0), len(gzip.compress(CUT)) - 5),
    "zstd, in its header": cut(zstd(CUT), 5),
    "zstd, in its data": cut(zstd(CUT), 60),
}
DAMAGED: Cage = {
    "no tar": lambda: b"no layer at all" * 50,
    "a header's checksum is wrong, first": lambda: b"X" + GOOD_TAR[1:],
    "a header's checksum is wrong, later": lambda: GOOD_TAR[:BLOCK] + b"X" + GOOD_TAR[BLOCK + 1 :],
    "members after one block of zeros": raw(BODY, bytes(BLOCK), header("g")),
    "members after the end": lambda: tar(file("f")) + tar(file("g")),
    "noise after the end": lambda: GOOD_TAR + b"noise",
    "zeros after the end": lambda: GOOD_TAR + bytes(64 << 10),
    "gzip, a wrong checksum": lambda: gzip.compress(GOOD_TAR)[:-8] + bytes(8),
    "zstd, a bit changed": lambda: bytes(
        each ^ 16 if place == 30 else each for place, each in enumerate(zstd(GOOD_TAR))
    ),
}
PACKED: Cage = {
    "plain": lambda: GOOD_TAR,
    "gzip": lambda: gzip.compress(GOOD_TAR),
    "gzip of several members": lambda: gzip.compress(GOOD_TAR[:700]) + gzip.compress(GOOD_TAR[700:]),
    "gzip with an empty member before": lambda: gzip.compress(b"") + gzip.compress(GOOD_TAR),
    "gzip with zeros after it": lambda: gzip.compress(GOOD_TAR) + bytes(512),
    "gzip with noise after it": lambda: gzip.compress(GOOD_TAR) + b"noise",
    "gzip of gzip": lambda: gzip.compress(gzip.compress(GOOD_TAR)),
    "gzip of nothing": lambda: gzip.compress(b""),
    "zstd": lambda: zstd(GOOD_TAR),
    "zstd of several frames": lambda: zstd(GOOD_TAR[:700]) + zstd(GOOD_TAR[700:]),
    "zstd with a skippable frame before": lambda: skippable(b"note") + zstd(GOOD_TAR),
    "zstd with a skippable frame after (zstd:chunked)": lambda: zstd(GOOD_TAR) + skippable(b"toc"),
    "zstd with noise after it": lambda: zstd(GOOD_TAR) + b"noise",
    "bzip2": lambda: bz2.compress(GOOD_TAR),
    "xz": lambda: lzma.compress(GOOD_TAR),
    "GNU's form": lambda: tar(*GOOD, file("x" * 150), form=tarfile.GNU_FORMAT),
    "ustar": lambda: tar(*GOOD, form=tarfile.USTAR_FORMAT),
    "V7, without magic": raw(header("f", b"\0", 4, at_257=bytes(8)), padded(b"mine")),
    "an empty layer of 1024 zeros": lambda: END,
}  # fmt: skip
CAGES: dict[str, Cage] = {
    "Ways out": ESCAPES,
    "Links": LINKS,
    "Devices, pipes and other kinds": NODES,
    "Whiteouts": WHITEOUTS,
    "Duplicates": DUPLICATES,
    "Bombs": BOMBS,
    "Sparse files": SPARSE,
    "Extended headers": TRICKS,
    "Truncated": TRUNCATED,
    "Damaged": DAMAGED,
    "Packed": PACKED,
}


def animals() -> Iterator[tuple[str, Animal]]:
    """All of them, with their cage."""
    for cage, held in CAGES.items():
        for name, make in held.items():
            yield cage, Animal(name, make)
