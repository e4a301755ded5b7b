"""Root file systems of containers on real overlayfs and idmapped mounts."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.farm.one_host import BASE

from labfleet_proto.errors import InternalError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters import kernel
from labfleet_runtime_agent.adapters.snapshots import Snapshots
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root"),
]

ONE = ContainerId(f"{one_host.NAME}-c1")
TWO = ContainerId(f"{one_host.NAME}-c2")
OTHER_BASE = BASE + IDS_PER_CONTAINER


@pytest.fixture
def home() -> Iterator[Path]:
    with one_host.directory() as made:
        (made / "state" / "containers").mkdir(parents=True)
        yield made


@pytest.fixture
def snapshots(home: Path) -> Iterator[Snapshots]:
    made = Snapshots(home / "state", home / "run")
    yield made
    made.close()


def layer(home: Path, number: int, files: dict[str, str]) -> Path:
    """A layer with files of the container's root."""
    made = home / "layers" / str(number)
    made.mkdir(parents=True)
    for name, text in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def hide(layer: Path, name: str) -> None:
    """Take a name of the layers below away."""
    (layer / name).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(layer / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def upper_of(home: Path, container: ContainerId) -> Path:
    return home / "state" / "containers" / container / "upper"


def mounts_of(home: Path) -> list[Path]:
    return kernel.mounted_below(home)


def writes(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_text("written")


# -- what is seen


async def test_files_of_a_layer_appear(home: Path, snapshots: Snapshots) -> None:
    root = await snapshots.prepare(ONE, [layer(home, 0, {"etc/motd": "hello"})], BASE)
    assert root == snapshots.root_of(ONE)
    assert (root / "etc" / "motd").read_text() == "hello"


async def test_owners_are_shifted_by_the_base(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {"root": "", "ann": ""})
    os.chown(one / "ann", 1000, 50)
    root = await snapshots.prepare(ONE, [one], BASE)
    owners = [
        ((root / name).stat().st_uid, (root / name).stat().st_gid) for name in ("root", "ann")
    ]
    assert owners == [(BASE, BASE), (BASE + 1000, BASE + 50)]
    assert (one / "ann").stat().st_uid == 1000


async def test_containers_share_a_layer_with_ids_of_their_own(
    home: Path, snapshots: Snapshots
) -> None:
    shared = [layer(home, 0, {"file": "same"})]
    first = await snapshots.prepare(ONE, shared, BASE)
    second = await snapshots.prepare(TWO, shared, OTHER_BASE)
    owners = [(root / "file").stat().st_uid for root in (first, second)]
    assert owners == [BASE, OTHER_BASE]
    writes(first, "file")
    assert (second / "file").read_text() == "same"


async def test_the_upper_layer_wins(home: Path, snapshots: Snapshots) -> None:
    layers = [
        layer(home, 0, {"a": "0", "b": "0", "c": "0"}),
        layer(home, 1, {"b": "1", "c": "1"}),
        layer(home, 2, {"c": "2"}),
    ]
    root = await snapshots.prepare(ONE, layers, BASE)
    assert [(root / name).read_text() for name in "abc"] == ["0", "1", "2"]


async def test_whiteouts_hide_what_is_below(home: Path, snapshots: Snapshots) -> None:
    above = layer(home, 1, {"etc/new": ""})
    hide(above, "etc/gone")
    hide(above, "whole")
    layers = [layer(home, 0, {"etc/gone": "", "etc/kept": "", "whole/tree/x": ""}), above]
    root = await snapshots.prepare(ONE, layers, BASE)
    assert {path.name for path in (root / "etc").iterdir()} == {"new", "kept"}
    assert not (root / "whole").exists()


async def test_an_opaque_directory_hides_all_below(home: Path, snapshots: Snapshots) -> None:
    above = layer(home, 1, {"dir/new": ""})
    os.setxattr(above / "dir", "trusted.overlay.opaque", b"y")
    root = await snapshots.prepare(ONE, [layer(home, 0, {"dir/old": ""}), above], BASE)
    assert [path.name for path in (root / "dir").iterdir()] == ["new"]


async def test_a_layer_above_brings_back_what_one_below_hid(
    home: Path, snapshots: Snapshots
) -> None:
    middle = layer(home, 1, {})
    hide(middle, "file")
    layers = [layer(home, 0, {"file": "old"}), middle, layer(home, 2, {"file": "new"})]
    root = await snapshots.prepare(ONE, layers, BASE)
    assert (root / "file").read_text() == "new"


async def test_the_root_has_the_mode_of_the_image(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {})
    one.chmod(0o750)
    root = await snapshots.prepare(ONE, [one], BASE)
    assert stat.S_IMODE(root.stat().st_mode) == 0o750
    assert (root.stat().st_uid, root.stat().st_gid) == (BASE, BASE)


async def test_programs_keep_their_set_user_id(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {"su": ""})
    (one / "su").chmod(0o4755)
    root = await snapshots.prepare(ONE, [one], BASE)
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o4755


async def test_an_image_without_layers_is_an_empty_root(home: Path, snapshots: Snapshots) -> None:
    root = await snapshots.prepare(ONE, [], BASE)
    writes(root, "file")
    assert (upper_of(home, ONE) / "file").exists()


@pytest.mark.parametrize("count", [120, 127])
async def test_many_layers(home: Path, snapshots: Snapshots, count: int) -> None:
    """127 is what image and overlayfs allow; their names have to fit into one page."""
    layers = [
        layer(home, number, {f"f{number}": "", "top": str(number)}) for number in range(count)
    ]
    root = await snapshots.prepare(ONE, layers, BASE)
    assert (root / "top").read_text() == str(count - 1)
    assert len(list(root.iterdir())) == count + 1
    await snapshots.unmount(ONE)
    assert mounts_of(home) == []


# -- what is written


async def test_what_is_written_lies_above_the_layers(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {"old": "image"})
    root = await snapshots.prepare(ONE, [one], BASE)
    writes(root, "old", "new")
    assert (one / "old").read_text() == "image"
    assert {path.name for path in upper_of(home, ONE).iterdir()} == {"old", "new"}
    assert (upper_of(home, ONE) / "old").stat().st_uid == BASE


async def test_what_is_deleted_stays_in_the_layer(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {"old": "image"})
    root = await snapshots.prepare(ONE, [one], BASE)
    (root / "old").unlink()
    assert not (root / "old").exists()
    assert (one / "old").read_text() == "image"


async def test_what_was_written_outlives_the_mount(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"old": "", "mode": ""})]
    root = await snapshots.prepare(ONE, layers, BASE)
    writes(root, "new")
    root.chmod(0o700)
    (root / "old").unlink()
    await snapshots.unmount(ONE)
    assert not root.exists()
    root = await snapshots.prepare(ONE, layers, BASE)
    assert {path.name for path in root.iterdir()} == {"new", "mode"}
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


# -- again, and the end


async def test_preparing_again_is_nothing(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"a": ""}), layer(home, 1, {"b": ""})]
    root = await snapshots.prepare(ONE, layers, BASE)
    writes(root, "mine")
    before = mounts_of(home)
    assert await snapshots.prepare(ONE, layers, BASE) == root
    assert (root / "mine").exists()
    assert mounts_of(home) == before


async def test_another_life_of_the_agent_takes_a_mount_up(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"a": ""})]
    writes(await snapshots.prepare(ONE, layers, BASE), "mine")
    later = Snapshots(home / "state", home / "run")
    try:
        assert later.holders() == {ONE}
        assert (await later.prepare(ONE, layers, BASE) / "mine").exists()
        await later.unmount(ONE)
        assert mounts_of(home) == []
    finally:
        later.close()


async def test_what_was_half_mounted_is_completed(home: Path, snapshots: Snapshots) -> None:
    """As after a kill between two mounts."""
    layers = [layer(home, number, {f"f{number}": ""}) for number in range(3)]
    root = await snapshots.prepare(ONE, layers, BASE)
    kernel.unmount(root)
    root = await snapshots.prepare(ONE, layers, BASE)
    assert {path.name for path in root.iterdir()} == {"f0", "f1", "f2"}
    await snapshots.unmount(ONE)
    assert mounts_of(home) == []


async def test_unmounting_leaves_no_mount(home: Path, snapshots: Snapshots) -> None:
    await snapshots.prepare(ONE, [layer(home, 0, {}), layer(home, 1, {})], BASE)
    await snapshots.attach_volume(ONE, 0, layer(home, 2, {}), BASE)
    assert snapshots.holds(ONE)
    await snapshots.unmount(ONE)
    assert mounts_of(home) == []
    assert not snapshots.holds(ONE)
    await snapshots.unmount(ONE)  # again is nothing


async def test_unmounting_one_leaves_the_other(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"a": ""})]
    await snapshots.prepare(ONE, layers, BASE)
    root = await snapshots.prepare(TWO, layers, OTHER_BASE)
    await snapshots.unmount(ONE)
    assert snapshots.holders() == {TWO}
    assert (root / "a").exists()


async def test_a_name_that_begins_alike_is_another(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"a": ""})]
    longer = ContainerId(f"{ONE}0")
    root = await snapshots.prepare(longer, layers, BASE)
    await snapshots.prepare(ONE, layers, OTHER_BASE)
    await snapshots.unmount(ONE)
    assert (root / "a").exists()


async def test_a_root_in_use_is_unmounted_all_the_same(home: Path, snapshots: Snapshots) -> None:
    root = await snapshots.prepare(ONE, [layer(home, 0, {"a": "text"})], BASE)
    with (root / "a").open() as held:
        await snapshots.unmount(ONE)
        assert mounts_of(home) == []
        assert held.read() == "text"


async def test_discarding_takes_what_was_written(home: Path, snapshots: Snapshots) -> None:
    layers = [layer(home, 0, {"a": ""})]
    writes(await snapshots.prepare(ONE, layers, BASE), "mine")
    await snapshots.discard(ONE)
    assert mounts_of(home) == []
    assert not upper_of(home, ONE).exists()
    assert not (await snapshots.prepare(ONE, layers, BASE) / "mine").exists()


async def test_a_missing_layer_is_named_and_leaves_nothing(
    home: Path, snapshots: Snapshots
) -> None:
    layers = [layer(home, 0, {"a": ""}), home / "layers" / "missing", layer(home, 1, {})]
    with pytest.raises(InternalError, match=r"cannot mount the files of .*layers/missing"):
        await snapshots.prepare(ONE, layers, BASE)
    assert mounts_of(home) == []
    assert not snapshots.holds(ONE)


# -- volumes


async def test_files_of_a_volume_are_the_containers(home: Path, snapshots: Snapshots) -> None:
    data = layer(home, 0, {"there": ""})
    source = await snapshots.attach_volume(ONE, 0, data, BASE)
    assert (source / "there").stat().st_uid == BASE
    os.chown(source / "there", BASE + 7, BASE + 8)
    kept = (data / "there").stat()
    assert (kept.st_uid, kept.st_gid) == (7, 8)


async def test_a_volume_is_the_same_to_each_container(home: Path, snapshots: Snapshots) -> None:
    data = layer(home, 0, {"there": ""})
    os.chown(data / "there", 5, 5)
    first = await snapshots.attach_volume(ONE, 0, data, BASE)
    second = await snapshots.attach_volume(TWO, 0, data, OTHER_BASE)
    owners = [(source / "there").stat().st_uid for source in (first, second)]
    assert owners == [BASE + 5, OTHER_BASE + 5]


async def test_a_file_of_an_id_outside_belongs_to_nobody(home: Path, snapshots: Snapshots) -> None:
    one = layer(home, 0, {"stranger": ""})
    os.chown(one / "stranger", IDS_PER_CONTAINER + 5, 0)
    root = await snapshots.prepare(ONE, [one], BASE)
    assert (root / "stranger").stat().st_uid == 65_534
