"""Layers and archives as an enemy would make them: what is written stays below its root, or is refused.

Each test has a directory of its own in which the root lies beside a file that nobody may touch.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import zstandard
from tests.farm import one_host

from labfleet_chassis.tar_reading import open_tar
from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.decompression import decoded_by_magic
from labfleet_runtime_agent.adapters.kernel import open_in_root
from labfleet_runtime_agent.adapters.tree import Caps, TreeWriter
from labfleet_runtime_agent.adapters.tree_reader import TreeReader
from labfleet_runtime_agent.adapters.unpack_layer import unpack

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

GZIP, ZSTD = "gzip", "zstd"
MIB = 1 << 20
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep, as ping has it."""

Member = tuple[tarfile.TarInfo, bytes]


# -- making archives


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Member:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.size = len(data)
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


def directory(name: str, **fields: Any) -> Member:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> Member:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def link(name: str, target: str) -> Member:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def archive(*members: Member, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar whose names are taken as they are."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind, errors="surrogateescape") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


# -- the place where they are unpacked


class Box:
    """A root, and beside it what must stay as it is."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "root"
        self.root.mkdir(mode=0o755)
        (home / "outside").mkdir()
        (home / "outside" / "file").write_text("untouched")

    def unpack(self, *members: Member) -> None:
        """Unpack a layer, in this process."""
        unpack(str(self.root), io.BytesIO(archive(*members)))

    def write(self, data: bytes, **options: Any) -> None:
        """Unpack an archive as `docker cp` does."""
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with open_tar(io.BytesIO(data), 1 << 20) as tar:
                TreeWriter(root, **options).write_all(tar)
        finally:
            os.close(root)

    def child(self, blob: bytes) -> dict[str, str]:
        """Unpack a layer in the confined child; return its last word."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "labfleet_runtime_agent.adapters.unpack_layer",
                str(self.root),
            ],
            input=blob,
            capture_output=True,
            timeout=50,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        answer: dict[str, str] = json.loads(done.stdout)
        json.dumps(answer, ensure_ascii=False).encode()  # what cannot be encoded cannot be told
        return answer

    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def check(self) -> None:
        beside = {path.name for path in self.home.iterdir()}
        assert beside == {"root", "outside"}
        assert [path.name for path in (self.home / "outside").iterdir()] == ["file"]
        there = (self.home / "outside" / "file").stat()
        assert (self.home / "outside" / "file").read_text() == "untouched"
        assert (there.st_nlink, there.st_uid, stat.S_IMODE(there.st_mode)) == (1, 0, 0o644)


@pytest.fixture
def box() -> Iterator[Box]:
    with one_host.directory() as home:
        made = Box(home)
        yield made
        made.check()


@pytest.fixture(autouse=True)
def no_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads archives here and never writes files."""

    def refuse(*_args: Any, **_options: Any) -> NoReturn:
        raise AssertionError("tarfile extracts")

    for name in ("extract", "extractall", "_extract_member", "makefile", "makedir", "makelink"):
        monkeypatch.setattr(tarfile.TarFile, name, refuse)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# -- ways out


def test_an_absolute_name_is_taken_from_the_root(box: Box) -> None:
    box.unpack(entry("/etc/motd", data=b"hello"), entry("//tmp/./x"))
    assert (box.root / "etc" / "motd").read_bytes() == b"hello"
    assert (box.root / "tmp" / "x").exists()


@pytest.mark.parametrize(
    "name", ["../outside/file", "a/../../outside/file", "..", "/../outside/file", "a/.."]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_a_name_with_dots_is_refused(box: Box, name: str, kind: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="leads out of its directory"):
        box.unpack(entry(name, kind, linkname="x"))


@pytest.mark.parametrize("target", ["..", "../..", "../outside", "/", "/outside", "{home}/outside"])
def test_a_file_through_a_symbolic_link_stays_inside(box: Box, target: str) -> None:
    """Links are resolved as inside the container: what they name is made there, or it is refused."""
    target = target.format(home=box.home)
    members = (symlink("door", target), entry("door/file", data=b"mine"))
    try:
        box.unpack(*members)
    except InvalidRequestError:
        return
    assert "mine" in {path.read_text() for path in box.root.rglob("file")}


def test_a_chain_of_links_stays_inside(box: Box) -> None:
    box.unpack(
        directory("a/b/c"),
        symlink("a/b/c/up", "../../.."),
        symlink("door", "a/b/c/up/../../.."),
        entry("door/file", data=b"mine"),
    )
    assert (box.root / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("target", ["/outside/file", "../outside/file", "{home}/outside/file"])
def test_a_file_replaces_a_link_instead_of_following_it(box: Box, target: str) -> None:
    target = target.format(home=box.home)
    box.unpack(symlink("door", target), entry("door", data=b"mine", mode=0o4777, uid=7))
    assert (box.root / "door").read_bytes() == b"mine"
    assert not (box.root / "door").is_symlink()


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE])
def test_anything_replaces_a_link_instead_of_following_it(box: Box, kind: bytes) -> None:
    there = f"{box.home}/outside"
    box.unpack(symlink("door", there), entry("door", kind, linkname="elsewhere", mode=0o700, uid=9))
    assert str((box.root / "door").resolve()) != there


@pytest.mark.parametrize(
    "target", ["../outside/file", "/../outside/file", "{home}/outside/file", "missing", "", "."]
)
def test_a_hard_link_to_outside_is_refused(box: Box, target: str) -> None:
    with pytest.raises(InvalidRequestError, match="archive"):
        box.unpack(link("mine", target.format(home=box.home)))


def test_a_hard_link_through_a_symbolic_link_stays_inside(box: Box) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"link target 'door/file' does not exist|No such"
    ):
        box.unpack(symlink("door", "../outside"), link("mine", "door/file"))


def test_a_hard_link_to_a_symbolic_link_is_one_to_the_link(box: Box) -> None:
    box.unpack(symlink("door", f"{box.home}/outside/file"), link("mine", "door"))
    assert (box.root / "mine").is_symlink()


def test_writing_to_a_hard_link_leaves_its_twin(box: Box) -> None:
    box.unpack(entry("one", data=b"first"), link("two", "one"), entry("two", data=b"second"))
    assert ((box.root / "one").read_bytes(), (box.root / "two").read_bytes()) == (
        b"first",
        b"second",
    )


def test_a_hard_link_to_a_directory_is_refused(box: Box) -> None:
    with pytest.raises(InvalidRequestError, match="is not a file"):
        box.unpack(directory("dir"), link("again", "dir"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("name", ["sda", "etc/dev/sda", "devices/sda"])
def test_a_device_is_refused(box: Box, kind: bytes, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is a device or of an unknown type"):
        box.unpack(entry(name, kind, devmajor=8, devminor=0))
    assert not (box.root / name).exists()


def test_a_device_cannot_be_had_by_a_whiteout_and_a_link(box: Box) -> None:
    """A whiteout is a device 0/0: a link to it would be one below a name of the enemy's choice."""
    with pytest.raises(InvalidRequestError, match="is not a file"):
        box.unpack(entry(".wh.gone"), link("mine", "gone"))


def test_the_root_itself_cannot_be_replaced(box: Box) -> None:
    box.unpack(symlink("/", f"{box.home}/outside"), symlink(".", "x"), entry("./file"))
    assert box.root.is_dir()
    assert not box.root.is_symlink()


# -- bombs


def test_too_many_members_are_refused(box: Box) -> None:
    data = archive(*(entry(f"f{number}") for number in range(6)))
    with pytest.raises(InvalidRequestError, match="more than 5 members"):
        box.write(data, caps=Caps(members=5))


def test_too_many_bytes_are_refused_before_they_are_written(box: Box) -> None:
    data = archive(entry("a", data=b"x" * 600), entry("b", data=b"x" * 600))
    with pytest.raises(InvalidRequestError, match="or 1000 bytes"):
        box.write(data, caps=Caps(total_bytes=1000))
    assert box.names() == {"a"}


def test_a_size_beyond_all_reason_is_refused(box: Box) -> None:
    member = tarfile.TarInfo("huge")
    member.size = 1 << 62
    blob = member.tobuf(tarfile.GNU_FORMAT)
    answer = box.child(blob)
    assert answer["code"] == "invalid"
    assert "bytes" in answer["error"]
    assert box.names() == set()


def test_a_sparse_file_beyond_all_reason_is_refused(box: Box) -> None:
    answer = box.child(sparse_header("hole", 1 << 50, 0) + bytes(1024))
    assert answer["code"] == "invalid"
    assert box.names() == set()


@pytest.mark.parametrize("packing", [GZIP, ZSTD])
def test_what_shrinks_a_thousandfold_is_decoded_piece_by_piece(packing: str) -> None:
    """A chunk of it grows to gigabytes, which is neither held at once nor copied for each read."""
    blob = compressed_zeros(b"", 64 * MIB, packing)
    pieces = [len(piece) for piece in decoded_by_magic(io.BytesIO(blob))]
    assert sum(pieces) == 64 * MIB
    assert max(pieces) <= MIB


def test_a_header_that_would_fill_the_memory_ends_the_child_only(box: Box) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    blob = compressed_zeros(member.tobuf(tarfile.GNU_FORMAT), 3 << 30, ZSTD)
    assert "error" in box.child(blob)
    assert box.names() == set()


@pytest.mark.parametrize("depth", [129, 1000])
def test_too_deep_a_path_is_refused(box: Box, depth: int) -> None:
    with pytest.raises(InvalidRequestError, match="too deep or too long"):
        box.unpack(entry("/".join(["d"] * depth)))


def test_a_deep_path_is_made(box: Box) -> None:
    name = "/".join(["d"] * 127 + ["file"])
    box.unpack(entry(name, data=b"deep"))
    assert (box.root / name).read_bytes() == b"deep"


@pytest.mark.parametrize("name", ["x" * 256, "d/" + "x" * 256, "/".join(["x" * 250] * 20)])
def test_too_long_a_name_is_refused(box: Box, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="archive"):
        box.unpack(entry(name))


def compressed_zeros(header: bytes, size: int, packing: str) -> bytes:
    """The header and so many zeros, compressed."""
    block = bytes(MIB)
    made = io.BytesIO()
    target: Any = (
        gzip.GzipFile(fileobj=made, mode="wb", compresslevel=6)
        if packing == GZIP
        else zstandard.ZstdCompressor().stream_writer(made, closefd=False)
    )
    with target:
        target.write(header)
        for written in range(0, size, MIB):
            target.write(block[: min(MIB, size - written)])
    return made.getvalue()


# -- damaged blobs


GOOD = archive(
    directory("etc"),
    entry("etc/motd", data=b"hello\n" * 500),
    entry("random", data=os.urandom(9000)),
)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


Encode = Callable[[bytes], bytes]
ENCODINGS: dict[str, Encode] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
    "gzip-members": lambda data: b"".join(gzip.compress(part) for part in halves(data)),
    "zstd-frames": lambda data: b"".join(zstd(part) for part in halves(data)),
    "gzip-empty-member": lambda data: gzip.compress(b"") + gzip.compress(data),
}
each_way = pytest.mark.parametrize(
    "encode", [bytes, gzip.compress, zstd], ids=["tar", "gzip", "zstd"]
)


def halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 3], data[len(data) // 3 :]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_layer_is_told_by_both_digests(box: Box, encode: Encode) -> None:
    blob = encode(GOOD)
    assert box.child(blob) == {"digest": sha256(blob), "diff_id": sha256(GOOD)}
    assert (box.root / "etc" / "motd").read_bytes() == b"hello\n" * 500


@each_way
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_layer_is_damaged(box: Box, encode: Encode, share: float) -> None:
    blob = encode(GOOD.rstrip(b"\0"))
    answer = box.child(blob[: int(len(blob) * share)])
    assert answer.get("code") == "invalid", answer


@each_way
def test_a_changed_bit_is_damage_or_another_digest(box: Box, encode: Encode) -> None:
    blob = bytearray(encode(GOOD))
    blob[len(blob) // 2] ^= 0x10
    answer = box.child(bytes(blob))
    assert answer.get("code", "invalid") == "invalid", answer
    assert answer.get("digest") != sha256(encode(GOOD))


@pytest.mark.parametrize("blob", [b"no layer at all" * 50, b"\x1f\x8b\x08\x00" + b"\xff" * 600])
def test_bytes_that_are_no_layer_are_damaged(box: Box, blob: bytes) -> None:
    answer = box.child(blob)
    assert answer.get("code") == "invalid", answer


def test_what_follows_a_gzip_stream_is_damage(box: Box) -> None:
    answer = box.child(gzip.compress(GOOD) + b"more")
    assert answer.get("code") == "invalid", answer


def test_what_follows_the_end_of_the_tar_counts_for_the_digest(box: Box) -> None:
    padded = GOOD + bytes(64 * 1024)
    assert box.child(padded)["diff_id"] == sha256(padded)


@pytest.mark.parametrize(
    "fields",
    [
        {"mtime": "inf"},
        {"mtime": "nan"},
        {"mtime": "1e300"},
        {"uid": str(1 << 70)},
        {"linkpath": "a\0b"},
        {"SCHILY.xattr.user.a\0b": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
        {"GNU.sparse.map": "1,x"},
        {"size": "-5"},
        {"size": "x"},
    ],
    ids=lambda fields: "=".join(next(iter(fields.items()))).replace("\0", "0"),
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])
def test_nonsense_in_a_header_is_damage_or_nothing(
    box: Box, kind: bytes, fields: dict[str, str]
) -> None:
    try:
        box.unpack(entry("x", kind, linkname="y", pax_headers=fields))
    except InvalidRequestError as exc:
        assert exc.message.startswith(("archive: ", "layer: "))  # noqa: PT017


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_bad_name_can_be_told(box: Box, kind: bytes) -> None:
    name = "bad\udcff"
    blob = archive(entry(name), entry(f"{name}/x", kind, linkname="y"))
    assert box.child(blob)["code"] == "invalid"


# -- what is kept


def test_owner_mode_and_time_are_the_archives(box: Box) -> None:
    box.unpack(
        directory("dir", uid=5, gid=6, mode=0o1770, mtime=1_000_000_000.5),
        entry("dir/file", uid=1000, gid=50, mode=0o640, mtime=1_500_000_000.25),
        symlink("dir/link", "file"),
    )
    told = [(box.root / name).stat() for name in ("dir", "dir/file")]
    assert [(each.st_uid, each.st_gid) for each in told] == [(5, 6), (1000, 50)]
    assert [stat.S_IMODE(each.st_mode) for each in told] == [0o1770, 0o640]
    assert [each.st_mtime_ns for each in told] == [
        1_000_000_000_500_000_000,
        1_500_000_000_250_000_000,
    ]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711])
def test_set_user_and_group_id_are_kept(box: Box, mode: int) -> None:
    box.unpack(entry("su", data=b"#!", mode=mode, uid=33, gid=44))
    there = (box.root / "su").stat()
    assert (stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid) == (mode, 33, 44)


def test_capabilities_of_a_file_are_kept(box: Box) -> None:
    headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    box.unpack(entry("ping", data=b"ELF", mode=0o755, pax_headers=headers))
    assert os.getxattr(box.root / "ping", "security.capability") == CAPABILITY


def test_a_users_attributes_are_kept(box: Box) -> None:
    headers = {"SCHILY.xattr.user.note": "kept"}
    box.unpack(entry("file", pax_headers=headers), directory("dir", pax_headers=headers))
    assert [os.getxattr(box.root / name, "user.note") for name in ("file", "dir")] == [b"kept"] * 2


@pytest.mark.parametrize(
    "name", ["trusted.overlay.opaque", "trusted.overlay.redirect", "security.selinux", "system.x"]
)
def test_attributes_with_power_are_dropped(box: Box, name: str) -> None:
    headers = {f"SCHILY.xattr.{name}": "y"}
    box.unpack(directory("dir", pax_headers=headers), entry("file", pax_headers=headers))
    assert [os.listxattr(box.root / each) for each in ("dir", "file")] == [[], []]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_are_no_text_are_kept(box: Box, kind: int) -> None:
    name = b"caf\xe9/\xff\xfe"
    data = archive(entry(os.fsdecode(name), data=b"x"), symlink("to", os.fsdecode(name)), kind=kind)
    unpack(str(box.root), io.BytesIO(data))
    assert (Path(os.fsdecode(bytes(box.root) + b"/" + name))).read_bytes() == b"x"
    assert os.fsencode((box.root / "to").readlink()) == name


def test_the_child_keeps_such_names_too(box: Box) -> None:
    name = b"caf\xe9/\xff\xfe"
    assert "error" not in box.child(archive(entry(os.fsdecode(name), data=b"x")))
    assert os.path.exists(bytes(box.root) + b"/" + name)  # noqa: PTH110


def test_long_names_are_kept(box: Box) -> None:
    name = "/".join(["x" * 200] * 6)
    box.unpack(entry(name, data=b"long"), symlink("link", name))
    assert (box.root / name).read_bytes() == b"long"
    assert str((box.root / "link").readlink()) == name


def test_missing_directories_are_made(box: Box) -> None:
    box.unpack(entry("a/b/file"))
    assert stat.S_IMODE((box.root / "a" / "b").stat().st_mode) == 0o755


def test_a_link_inside_leads_where_it_does_in_the_container(box: Box) -> None:
    box.unpack(directory("usr/lib"), symlink("lib", "/usr/lib"), entry("lib/libc.so", data=b"x"))
    assert (box.root / "usr" / "lib" / "libc.so").read_bytes() == b"x"


# -- a member after a member


def test_a_pipe_is_not_written_to(box: Box) -> None:
    box.unpack(entry("pipe", tarfile.FIFOTYPE), entry("pipe", data=b"file"))
    assert (box.root / "pipe").read_bytes() == b"file"


def test_a_pipe_stays_one(box: Box) -> None:
    box.unpack(entry("pipe", tarfile.FIFOTYPE, mode=0o620, uid=3))
    there = (box.root / "pipe").stat()
    assert stat.S_ISFIFO(there.st_mode)
    assert (stat.S_IMODE(there.st_mode), there.st_uid) == (0o620, 3)


def test_a_pipe_is_no_directory(box: Box) -> None:
    with pytest.raises(InvalidRequestError):
        box.unpack(entry("pipe", tarfile.FIFOTYPE), entry("pipe/file"))


def test_the_last_of_a_name_wins(box: Box) -> None:
    box.unpack(
        entry("file", data=b"1"), entry("file", data=b"22"),
        directory("dir"), entry("dir/below"), entry("dir", data=b"now a file"),
        entry("other"), directory("other"), entry("other/below"),
    )  # fmt: skip
    assert (box.root / "file").read_bytes() == b"22"
    assert (box.root / "dir").is_file()
    assert (box.root / "other" / "below").exists()


def test_a_directory_told_twice_keeps_what_is_in_it(box: Box) -> None:
    box.unpack(directory("dir", mode=0o700), entry("dir/file"), directory("dir", mode=0o711))
    assert box.names() == {"dir", "dir/file"}
    assert stat.S_IMODE((box.root / "dir").stat().st_mode) == 0o711


def test_a_user_may_not_swap_files_and_directories(box: Box) -> None:
    (box.root / "dir").mkdir()
    with pytest.raises(InvalidRequestError, match="cannot overwrite directory"):
        box.write(archive(entry("dir")), refuse_type_change=True)
    with pytest.raises(InvalidRequestError, match="cannot overwrite non-directory"):
        box.write(archive(entry("file"), directory("file")), refuse_type_change=True)


# -- whiteouts


def is_whiteout(path: Path) -> bool:
    there = path.lstat()
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def test_a_whiteout_takes_overlays_form(box: Box) -> None:
    box.unpack(entry("etc/.wh.motd"), entry(".wh.tmp"))
    assert is_whiteout(box.root / "etc" / "motd")
    assert is_whiteout(box.root / "tmp")
    assert box.names() == {"etc", "etc/motd", "tmp"}


def test_an_opaque_directory_takes_overlays_form(box: Box) -> None:
    box.unpack(directory("dir"), entry("dir/.wh..wh..opq"), entry("dir/file"))
    assert os.getxattr(box.root / "dir", "trusted.overlay.opaque") == b"y"
    assert box.names() == {"dir", "dir/file"}


def test_a_whiteout_makes_way_for_a_file_of_the_same_layer(box: Box) -> None:
    box.unpack(entry(".wh.file"), entry("file", data=b"new"))
    assert (box.root / "file").read_bytes() == b"new"


def test_marks_of_older_builders_are_passed_over(box: Box) -> None:
    box.unpack(directory(".wh..wh.plnk"), entry(".wh..wh.aufs"), entry(".wh."), entry(".wh..."))
    assert box.names() <= {"."}


@pytest.mark.parametrize("name", [".wh...", "a/.wh...", ".wh.."])
def test_a_whiteout_hides_neither_itself_nor_what_is_above(box: Box, name: str) -> None:
    box.unpack(directory("a"), entry("kept"), entry(name))
    assert {"a", "kept"} <= box.names()


def test_a_whiteout_through_a_link_stays_inside(box: Box) -> None:
    with pytest.raises(InvalidRequestError):
        box.unpack(symlink("door", "../outside"), entry("door/.wh.file"))


def test_a_users_archive_has_no_whiteouts(box: Box) -> None:
    (box.root / "file").write_text("kept")
    box.write(archive(entry(".wh.file", data=b"plain")))
    assert (box.root / "file").read_text() == "kept"
    assert (box.root / ".wh.file").read_bytes() == b"plain"


# -- sparse files


def sparse_header(name: str, real_size: int, data_size: int) -> bytes:
    """A header of GNU's old form: one piece of data at the end."""
    member = tarfile.TarInfo(name)
    member.size = data_size
    buffer = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    buffer[156:157] = tarfile.GNUTYPE_SPARSE
    buffer[386:398] = tarfile.itn(real_size - data_size, 12, tarfile.GNU_FORMAT)
    buffer[398:410] = tarfile.itn(data_size, 12, tarfile.GNU_FORMAT)
    buffer[483:495] = tarfile.itn(real_size, 12, tarfile.GNU_FORMAT)
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    return bytes(buffer)


def test_a_sparse_file_is_whole(box: Box) -> None:
    blob = sparse_header("hole", 3 * MIB + 5, 5) + b"DATA\n".ljust(512, b"\0") + bytes(1024)
    unpack(str(box.root), io.BytesIO(blob))
    text = (box.root / "hole").read_bytes()
    assert (len(text), text[: 3 * MIB].strip(b"\0"), text[-5:]) == (3 * MIB + 5, b"", b"DATA\n")


# -- there and back

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw, effective."""


def test_a_tree_comes_back_as_it_was(box: Box) -> None:
    box.unpack(
        directory("dir", uid=1, gid=2, mode=0o1777, mtime=1_600_000_000.125),
        entry("dir/file", data=b"text", uid=3, gid=4, mode=0o4711, mtime=1_600_000_001.5),
        link("dir/twin", "dir/file"),
        symlink("dir/link", "../elsewhere"),
        entry("dir/pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("dir/\udcff\udcfe", data=b"bytes"),
        entry("dir/" + "n" * 250, data=b"long"),
        directory("dir/empty", mode=0o500),
        entry("dir/none"),
    )
    os.setxattr(box.root / "dir" / "file", "user.colour", b"blue\x00\xff")
    os.setxattr(box.root / "dir" / "file", "security.capability", CAPABILITY)
    os.utime(box.root / "dir" / "file", ns=(0, 1_600_000_000_123_456_789))
    before = facts(box.root / "dir")
    data = read_tree(box.root, "dir")
    box.write(data, base="copy")
    after = facts(box.root / "copy" / "dir")
    assert after == before


def read_tree(root: Path, name: str) -> bytes:
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    output = io.BytesIO()
    try:
        reader = TreeReader(output)
        reader.add(parent, name, name)
        reader.close()
    finally:
        os.close(parent)
    return output.getvalue()


def facts(top: Path) -> dict[str, tuple[Any, ...]]:
    """What must survive, times to the nanosecond."""
    found: dict[str, tuple[Any, ...]] = {}
    inodes: dict[int, str] = {}
    for path in sorted((top, *top.rglob("*"))):
        name = str(path.relative_to(top))
        there = path.lstat()
        content: object = None
        if stat.S_ISREG(there.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(there.st_mode):
            content = str(path.readlink())
        twin = inodes.setdefault(there.st_ino, name)
        attributes = {}
        if stat.S_ISREG(there.st_mode):
            attributes = {key: os.getxattr(path, key) for key in os.listxattr(path)}
        found[name] = (
            stat.S_IFMT(there.st_mode), stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid,
            there.st_mtime_ns, content, twin, attributes,
        )  # fmt: skip
    return found


def test_sockets_are_left_out_of_an_archive(box: Box) -> None:
    os.mknod(box.root / "socket", stat.S_IFSOCK | 0o600)
    (box.root / "file").write_text("x")
    with tarfile.open(fileobj=io.BytesIO(read_tree(box.root, "."))) as tar:
        assert tar.getnames() == [".", "./file"]


def test_a_link_of_the_tree_is_not_followed_when_it_is_read(box: Box) -> None:
    (box.root / "door").symlink_to(f"{box.home}/outside")
    with tarfile.open(fileobj=io.BytesIO(read_tree(box.root, "door"))) as tar:
        assert [(each.name, each.issym()) for each in tar] == [("door", True)]


def test_the_kernel_keeps_a_path_below_its_root(box: Box) -> None:
    (box.root / "up").symlink_to("../outside/file")
    (box.root / "file").write_text("inside")
    root = os.open(box.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError):
            open_in_root(root, "up", os.O_RDONLY)
        inside = open_in_root(root, "../../file", os.O_RDONLY)
        assert os.read(inside, 10) == b"inside"
        os.close(inside)
    finally:
        os.close(root)
