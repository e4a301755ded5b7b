"""Archives that are nearly right: a few fields of their headers, of their extensions or of their packing are not."""

import bz2
import gzip
import io
import lzma
import tarfile

from hypothesis import strategies as st

_BLOCK = 512
_SUM = slice(148, 156)
_FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12),
    "mtime": (136, 12), "type": (156, 1), "link": (157, 100), "magic": (257, 8),
    "devmajor": (329, 8), "devminor": (337, 8), "prefix": (345, 155),
}  # fmt: skip
_NAMES = ["a", "./a/b", "/etc/passwd", "../../x", "a/../../x", "", ".", "x" * 300, "é\n", "a/a"]
_RECORDS = [
    {}, {"path": "../y"}, {"path": "z\0z"}, {"size": "-1"}, {"size": "99999999999999999999"}, {"mtime": "nan"},
    {"uid": "x"}, {"linkpath": "/etc"}, {"SCHILY.xattr.user.a": "b"}, {"SCHILY.xattr.security.capability": "\x01"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
]  # fmt: skip
_VALUES = [
    b"", b"\0", b"777777777777", b"-1", b"\x80" + bytes(11), b"\xff" * 12, b"9" * 12, b" ", b"../x", b"1", b"K", b"L",
    b"x", b"g", b"S", b"3", b"6", b"2", b"5", b"\xf0\x9f",
]  # fmt: skip
_KINDS = [
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
]  # fmt: skip


@st.composite
def _members(draw: st.DrawFn) -> bytes:
    made = io.BytesIO()
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for _ in range(draw(st.integers(1, 4))):
            about = tarfile.TarInfo(draw(st.sampled_from(_NAMES)))
            about.type = draw(st.sampled_from(_KINDS))
            about.linkname = draw(st.sampled_from(_NAMES))
            about.mode = draw(st.sampled_from([0, 0o644, 0o6777]))
            about.uid = draw(st.sampled_from([0, 1000, 65_535, 70_000, 2_000_000]))
            data = b""
            if about.isreg():
                data = draw(st.binary(max_size=600))
                about.size = len(data)
            if form == tarfile.PAX_FORMAT:
                about.pax_headers = dict(draw(st.sampled_from(_RECORDS)))
            try:
                tar.addfile(about, io.BytesIO(data))
            except (ValueError, OverflowError, UnicodeError):
                continue  # a form cannot say it
    return made.getvalue()


def _summed(block: bytes) -> bytes:
    """A header with the sum that it should have."""
    bare = bytearray(block)
    bare[_SUM] = b" " * 8
    bare[_SUM] = b"%06o\0 " % sum(bare)
    return bytes(bare)


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """An archive, damaged in up to three places, maybe packed, maybe cut."""
    data = bytearray(draw(_members()))
    for _ in range(draw(st.integers(0, 3))):
        block = draw(st.integers(0, max(len(data) // _BLOCK - 1, 0))) * _BLOCK
        if draw(st.booleans()):
            start, size = _FIELDS[draw(st.sampled_from(sorted(_FIELDS)))]
            value = draw(st.sampled_from(_VALUES))[:size].ljust(size, b"\0")
            data[block + start : block + start + size] = value
            if draw(st.integers(0, 4)):
                data[block : block + _BLOCK] = _summed(bytes(data[block : block + _BLOCK]))
        elif data:
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    pack = draw(st.sampled_from([bytes, bytes, gzip.compress, bz2.compress, lzma.compress]))
    packed = bytearray(pack(bytes(data)))
    if packed and draw(st.integers(0, 3)) == 0:
        del packed[draw(st.integers(0, len(packed) - 1)) :]
    if packed and draw(st.integers(0, 3)) == 0:
        packed[draw(st.integers(0, len(packed) - 1))] ^= 255
    return bytes(packed)
