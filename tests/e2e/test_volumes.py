"""Named volumes: what is in them, who shares them, when they go."""

import json
from pathlib import Path

from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant


def test_a_volume_is_made_listed_inspected_and_removed(fleet: Fleet) -> None:
    assert fleet.docker("volume", "create", "--label", "a=b", "data").out == "data"
    assert fleet.docker("volume", "create", "data").out == "data"
    assert fleet.docker("volume", "ls", "-q").out == "data"
    assert fleet.docker("volume", "ls", "-q", "--filter", "label=a=c").out == ""
    assert fleet.docker("volume", "ls", "-q", "--filter", "dangling=true").out == "data"
    about = json.loads(fleet.docker("volume", "inspect", "data").out)[0]
    assert (about["Name"], about["Labels"], about["Driver"]) == ("data", {"a": "b"}, "local")
    assert about["Status"]["host"] in ("host1", "host2", "host3")
    assert fleet.docker("volume", "rm", "data").out == "data"
    assert "no such volume" in fleet.docker("volume", "inspect", "data", code=1).err
    assert "no such volume" in fleet.docker("volume", "rm", "data", code=1).err
    fleet.docker("volume", "rm", "-f", "data")


def test_two_containers_share_a_volume_on_its_host(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "writer", "-v", "data:/d", "busybox", "sleep", "60")
    fleet.docker("run", "-d", "--name", "reader", "-v", "data:/in:ro", "busybox", "sleep", "60")
    assert fleet.host_of("reader") == fleet.host_of("writer")
    fleet.docker("exec", "writer", "sh", "-c", "echo both > /d/f")
    assert fleet.docker("exec", "reader", "cat", "/in/f").out == "both"
    refused = fleet.docker("exec", "reader", "sh", "-c", "echo no > /in/f", code=1)
    assert "Read-only file system" in refused.err
    assert [mount["RW"] for mount in fleet.inspect("reader")["Mounts"]] == [False]
    used = fleet.docker("volume", "rm", "data", code=1).err
    assert "volume is in use" in used
    fleet.docker("rm", "-f", "writer", "reader")
    assert fleet.docker("run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/f").out == "both"
    fleet.docker("volume", "rm", "data")


def test_an_empty_volume_begins_with_the_files_of_the_image(fleet: Fleet) -> None:
    words = ("run", "--rm", "-v", "accounts:/etc", "busybox")
    assert "root" in fleet.docker(*words, "cat", "/etc/passwd").out
    fleet.docker(*words, "sh", "-c", "echo mine > /etc/passwd")
    assert fleet.docker(*words, "cat", "/etc/passwd").out == "mine"


def test_a_volume_by_mount_without_copies(fleet: Fleet) -> None:
    mount = "type=volume,source=bare,target=/etc,volume-nocopy"
    out = fleet.docker("run", "--rm", "--mount", mount, "busybox", "ls", "/etc").out
    assert "passwd" not in out


def test_volumes_of_two_hosts_cannot_meet_in_one_container(fleet: Fleet) -> None:
    for number in (1, 2):
        fleet.docker("run", "--rm", "-v", f"v{number}:/d", "--label",
                     f"labfleet.constraint=host==host{number}", "busybox", "true")  # fmt: skip
    done = fleet.docker("run", "-v", "v1:/a", "-v", "v2:/b", "busybox", "true", code=125)
    assert "volume lives on host1, host2" in done.err
    assert fleet.docker("ps", "-aq").out == ""


def test_rm_with_volumes_takes_anonymous_ones_only(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "box", "-v", "/anonymous", "-v", "named:/n", "busybox", "true")
    assert len(fleet.docker("volume", "ls", "-q").out.split()) == 2
    fleet.docker("rm", "-v", "box")
    until(lambda: fleet.docker("volume", "ls", "-q").out == "named")


def test_operators_mount_paths_of_a_host(fleet: Fleet, tmp_path: Path) -> None:
    """With the container's root as the host's, also where nobody else may look."""
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "in").write_text("from the host\n")
    script = "cat /mnt/in; echo from inside > /mnt/out"
    fleet.docker("run", "--name", "box", "-v", f"{secret}:/mnt", "busybox", "sh", "-c", script)
    assert (secret / "out").read_text() == "from inside\n"
    assert (secret / "out").owner() == "root"
    (mount,) = fleet.inspect("box")["Mounts"]
    assert (mount["Type"], mount["Source"], mount["RW"]) == ("bind", str(secret), True)
    done = fleet.docker("run", "--rm", "--mount", f"type=bind,src={secret}/in,dst=/one,readonly",
                        "busybox", "sh", "-c", "cat /one; echo x > /one", code=1)  # fmt: skip
    assert done.out == "from the host"
    fleet.docker("run", "--rm", "-v", f"{tmp_path}/made:/made", "busybox", "touch", "/made/f")
    assert (tmp_path / "made" / "f").exists()
    done = fleet.docker("run", "--rm", "--mount", f"type=bind,src={tmp_path}/no,dst=/x", "busybox",
                        "true", code=125)  # fmt: skip
    assert "bind source path does not exist" in done.err


def test_operators_alone_have_volumes_from_elsewhere(
    fleet: Fleet, tenants: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "kept").write_text("kept")
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={shared}")
    fleet.docker("volume", "create", *options, "shared")
    script = "cat /data/kept; echo new > /data/new"
    done = fleet.docker("run", "--rm", "-v", "shared:/data", "busybox", "sh", "-c", script)
    assert done.out == "kept"
    assert (shared / "new").read_text() == "new\n"
    assert fleet.docker("system", "df", "-v").out
    fleet.docker("volume", "rm", "shared")
    assert (shared / "kept").read_text() == "kept"
    nothing = ("--opt", "type=nosuchfs", "--opt", "o=addr=192.0.2.1", "--opt", "device=:/export")
    fleet.docker("volume", "create", *nothing, "nothing")
    refused = fleet.docker("run", "--rm", "-v", "nothing:/data", "busybox", "true", code=None)
    assert refused.code == 125
    assert "failed to mount local volume: mount :/export: " in refused.err
    fleet.docker("volume", "rm", "nothing")
    for flags, words in ((options, "host paths"), (nothing, "operators only")):
        assert words in tenants[0].docker("volume", "create", *flags, "bad", code=1).err
