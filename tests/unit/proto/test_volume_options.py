"""What a volume's driver options mean."""

import pytest

from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.volume_options import DEFAULT_TMPFS_BYTES, VolumeKind, volume_kind

MIB = 1 << 20


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, VolumeKind()),
        ({"o": "size=16m"}, VolumeKind(kind="sized", size_bytes=16 * MIB)),
        ({"size": "1GiB"}, VolumeKind(kind="sized", size_bytes=1 << 30)),
        (
            {"type": "tmpfs", "device": "tmpfs"},
            VolumeKind(kind="tmpfs", size_bytes=DEFAULT_TMPFS_BYTES),
        ),
        (
            {"type": "tmpfs", "o": "size=8388608,uid=1000,mode=1777"},
            VolumeKind(kind="tmpfs", size_bytes=8 * MIB, words=("uid=1000", "mode=1777")),
        ),
    ],
)
def test_options_are_read(options: dict[str, str], kind: VolumeKind) -> None:
    assert volume_kind(options) == kind


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "o": "bind", "device": "/etc"},
        {"type": "bind"},
        {"o": "rbind", "device": "/etc"},
        {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/x"},
        {"type": "ext4", "device": "/dev/sda1"},
        {"type": "overlay"},
    ],
)
def test_what_reaches_the_host_or_beyond_is_forbidden(options: dict[str, str]) -> None:
    with pytest.raises(ForbiddenError, match="DriverOpts"):
        volume_kind(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"odd": "1"}, 'invalid option: "odd"'),
        ({"o": "uid=1"}, "missing required option: type"),
        ({"device": "/dev/sda1"}, "missing required option: type"),
        ({"o": "size=1k"}, "invalid size"),
        ({"o": "size=lots"}, "invalid size"),
        ({"size": "2t"}, "invalid size"),
        ({"type": "tmpfs", "o": "size=8m,evil"}, 'invalid option: "o=evil"'),
    ],
)
def test_what_means_nothing_is_invalid(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        volume_kind(options)


def test_operators_mount_what_is_elsewhere() -> None:
    def read(**options: str) -> VolumeKind:
        return volume_kind(options, is_operator=True)

    nfs = read(type="nfs", o="addr=192.0.2.1,rw", device=":/export")
    assert (nfs.kind, nfs.file_system, nfs.device) == ("mounted", "nfs", ":/export")
    assert nfs.words == ("addr=192.0.2.1", "rw")
    assert read(type="none", o="bind", device="/srv").words == ("bind",)
    assert read(type="bind", device="/srv").words == ("bind",)
    assert read(type="tmpfs").kind == "tmpfs"
    for options in (
        {"type": "nfs"},
        {"type": "a b", "device": "x"},
        {"type": "none", "o": "bind", "device": "srv"},
        {"type": "nfs", "o": "-o", "device": "x"},
    ):
        with pytest.raises(InvalidRequestError):
            read(**options)
