"""What operators may and no tenant: containers that reach into their host."""

import io
import json
import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant


def _lines(fleet: Fleet, *words: str) -> list[str]:
    return fleet.docker("run", "--rm", *words).out.splitlines()


def _capabilities(line: str) -> int:
    return int(line.split()[1], 16)


def _own_capabilities() -> int:
    found = re.search(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1], 16)


def test_a_privileged_container_has_the_hosts_powers(fleet: Fleet) -> None:
    script = (
        "mkdir -p /t && mount -t tmpfs none /t && grep -c ' /t tmpfs' /proc/mounts; "
        "cat /proc/self/uid_map; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; "
        "ls /dev | wc -l; head -c1 /dev/kmsg >/dev/null && echo kmsg; ls /sys/fs/cgroup | head -1; "
        "touch /proc/sys/kernel/panic && echo open; ip link set lo mtu 1400 && echo net; id -u"
    )
    lines = _lines(fleet, "--privileged", "--name", "power", "busybox", "sh", "-c", script)
    assert lines[0] == "1"
    assert lines[1].split() == ["0", "0", "4294967295"]
    assert _capabilities(lines[2]) == _own_capabilities()
    assert lines[3].split()[1] == "0"
    assert int(lines[4]) > 20
    assert "kmsg" in lines
    assert lines[-3:] == ["open", "net", "0"]
    fleet.docker("create", "--name", "box", "--privileged", "busybox", "true")
    assert fleet.inspect("box")["HostConfig"]["Privileged"] is True


def test_its_files_are_copied_compared_and_committed_as_any_others(fleet: Fleet) -> None:
    """The ids of its files are the host's, and those that its image and its clients know."""
    fleet.docker("run", "--name", "power", "--privileged", "busybox", "sh", "-c",
                 "echo hi > /mine; chown 1000:1000 /mine")  # fmt: skip
    assert "A /mine" in fleet.docker("diff", "power").out
    fleet.docker("commit", "power", "of-power")
    try:
        shown = fleet.docker("run", "--rm", "of-power", "stat", "-c", "%u:%g", "/mine").out
        assert shown == "1000:1000"
    finally:
        fleet.docker("rmi", "of-power")
    fleet.docker("start", "power")
    fleet.docker("wait", "power")
    with tarfile.open(fileobj=io.BytesIO(fleet.docker("cp", "power:/mine", "-").raw)) as tar:
        about = tar.getmember("mine")
    assert (about.uid, about.gid) == (1000, 1000)


def test_host_pids_and_their_end(fleet: Fleet) -> None:
    """It sees this process; what it leaves behind ends with it."""
    script = "sleep 6543 & [ -d /proc/$0 ] && echo seen; exec sleep 600"
    fleet.docker("run", "-d", "--name", "all", "--pid", "host", "busybox", "sh", "-c", script,
                 str(os.getpid()))  # fmt: skip
    until(lambda: fleet.docker("logs", "all").out == "seen")
    assert fleet.inspect("all")["HostConfig"]["PidMode"] == "host"
    assert "sleep 6543" in fleet.docker("top", "all").out
    assert _processes("sleep\x006543\x00")
    fleet.docker("kill", "all")
    assert fleet.docker("wait", "all").out == "137"
    until(lambda: not _processes("sleep\x006543\x00"))


def _processes(command: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_text() == command:
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_other_namespaces_of_the_host(fleet: Fleet) -> None:
    mine = {kind: Path(f"/proc/self/ns/{kind}").readlink().name for kind in ("uts", "ipc", "user")}
    script = "for kind in uts ipc user cgroup; do readlink /proc/self/ns/$kind; done; hostname"
    lines = _lines(fleet, "--uts", "host", "--ipc", "host", "--userns", "host", "--cgroupns", "host",
                   "busybox", "sh", "-c", script)  # fmt: skip
    assert lines[:3] == [mine["uts"], mine["ipc"], mine["user"]]
    assert lines[3] == Path("/proc/self/ns/cgroup").readlink().name
    assert lines[4] == socket.gethostname()
    fleet.docker("create", "--name", "box", "--uts", "host", "--ipc", "host", "--userns", "host",
                 "--cgroupns", "host", "busybox")  # fmt: skip
    asked = fleet.inspect("box")["HostConfig"]
    for field in ("UTSMode", "IpcMode", "UsernsMode", "CgroupnsMode"):
        assert asked[field] == "host"


def test_the_network_of_its_host(fleet: Fleet) -> None:
    done = fleet.docker("run", "-d", "--name", "net", "--network", "host", "-p", "80:80", "busybox",
                        "sleep", "600")  # fmt: skip
    assert "Published ports are discarded" in done.err
    about = fleet.inspect("net")
    host = about["Node"]["Name"]
    assert about["Config"]["Hostname"] == host
    assert list(about["NetworkSettings"]["Networks"]) == ["host"]
    address = about["Node"]["IP"].partition(":")[0]
    assert address in fleet.docker("exec", "net", "ip", "-4", "addr").out
    assert fleet.docker("exec", "net", "hostname").out == host
    inside = fleet.docker("exec", "net", "cat", "/etc/resolv.conf").out
    assert inside == Path("/etc/resolv.conf").read_text().strip()
    done = fleet.docker("network", "connect", "bridge", "net", code=1)
    assert "cannot be connected" in done.err
    fleet.docker("run", "--rm", "--network", "container:net", "busybox", "ip", "link")
    done = fleet.docker("create", "--network", "host", "--sysctl", "net.core.somaxconn=9", "busybox",
                        code=1)  # fmt: skip
    assert "not allowed in host network namespace" in done.err


def test_devices(fleet: Fleet) -> None:
    script = "ls -l /dev/other; : < /dev/other && echo opened; ls /dev | grep -c loop; true"
    lines = _lines(fleet, "--device", "/dev/fuse:/dev/other:r", "busybox", "sh", "-c", script)
    assert lines[0].startswith("cr")
    assert lines[1:] == ["opened", "0"]
    rules = ("--device-cgroup-rule", "c 10:229 r", "--cap-add", "MKNOD")
    script = "mknod /k c 10 229 && : < /k && echo made; mknod /z c 1 11; : < /z"
    done = fleet.docker("run", "--name", "made", *rules, "busybox", "sh", "-c", script, code=1)
    assert done.out == "made"
    assert "not permitted" in done.err
    assert fleet.inspect("made")["HostConfig"]["DeviceCgroupRules"] == ["c 10:229 r"]
    done = fleet.docker("run", "--device", "/dev/nosuch", "busybox", "true", code=127)
    assert 'error gathering device information while adding custom device "/dev/nosuch"' in done.err
    fleet.docker("create", "--name", "box", "--device", "/dev/kmsg", "busybox")
    assert fleet.inspect("box")["HostConfig"]["Devices"] == [
        {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}
    ]


def test_capabilities_and_filters(fleet: Fleet, tmp_path: Path) -> None:
    script = "ip link set lo mtu 1500 && echo set; grep CapEff /proc/self/status; umount /x 2>&1"
    lines = _lines(fleet, "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script + "; true")
    assert lines[0] == "set"
    assert _capabilities(lines[1]) >> 12 & 1
    lines = _lines(fleet, "--cap-add", "ALL", "busybox", "grep", "CapEff", "/proc/self/status")
    assert _capabilities(lines[0]) == _own_capabilities()
    mount = ("busybox", "sh", "-c", "mkdir /t && mount -t tmpfs none /t && echo mounted")
    assert _lines(fleet, "--cap-add", "SYS_ADMIN", *mount) == ["mounted"]
    status = ("busybox", "grep", "-E", "^Seccomp:", "/proc/self/status")
    assert _lines(fleet, "--security-opt", "seccomp=unconfined", *status)[0].split()[1] == "0"
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [], "includes": {}},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_TIME"]}},
        ],
    }))  # fmt: skip
    script = "mkdir /a; touch /b && rm /b && rmdir /nosuch"
    done = fleet.docker("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "sh", "-c",
                        script, code=1)  # fmt: skip
    assert "can't create directory '/a': Operation not permitted" in done.err
    assert "No such file" in done.err
    open_paths = (
        "--security-opt",
        "systempaths=unconfined",
        "--security-opt",
        "apparmor=unconfined",
    )
    lines = _lines(fleet, *open_paths, "busybox", "sh", "-c",
                   "grep -c ' /proc/' /proc/mounts; wc -l < /proc/interrupts")  # fmt: skip
    assert lines[0] == "0"
    assert int(lines[1]) > 0


def test_limits_of_disks_and_a_lower_score(fleet: Fleet) -> None:
    disk = _disk()
    fleet.docker("run", "-d", "--name", "slow", "--device-write-bps", f"{disk}:1mb", "--device-read-iops",
                 f"{disk}:100", "--oom-score-adj", "-500", "busybox", "sleep", "600")  # fmt: skip
    about = fleet.inspect("slow")["HostConfig"]
    assert about["BlkioDeviceWriteBps"] == [{"Path": disk, "Rate": 1 << 20}]
    assert about["BlkioDeviceReadIOps"] == [{"Path": disk, "Rate": 100}]
    assert about["OomScoreAdj"] == -500
    number = Path(disk).stat().st_rdev
    files = [
        *Path("/sys/fs/cgroup").glob(
            f"**/{fleet.inspect('slow')['Id']}/blkio.throttle.write_bps_device"
        ),
        *Path("/sys/fs/cgroup").glob(f"**/{fleet.inspect('slow')['Id']}/io.max"),
    ]
    assert any(f"{os.major(number)}:{os.minor(number)}" in file.read_text() for file in files)


def _disk() -> str:
    done = subprocess.run(
        ["lsblk", "-dnpo", "NAME,TYPE"], capture_output=True, text=True, check=True
    )
    return next(line.split()[0] for line in done.stdout.splitlines() if line.endswith("disk"))


def test_a_privileged_exec(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "plain", "busybox", "sleep", "600")
    status = ("grep", "CapBnd", "/proc/self/status")
    less = _capabilities(fleet.docker("exec", "plain", *status).out)
    more = _capabilities(fleet.docker("exec", "--privileged", "plain", *status).out)
    assert more & less == less
    assert more >> 21 & 1  # SYS_ADMIN, in its own user namespace
    assert not less >> 21 & 1


@pytest.fixture
def shared_mount(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    subprocess.run(["mount", "--make-shared", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-R", "-l", str(place)], check=True)


def test_mounts_pass_through_a_shared_bind(fleet: Fleet, shared_mount: Path) -> None:
    fleet.docker("run", "-d", "--name", "out", "--privileged", "-v", f"{shared_mount}:/s:rshared",
                 "busybox", "sh", "-c",
                 "mkdir /s/in && mount -t tmpfs none /s/in && touch /s/in/file; sleep 600")  # fmt: skip
    until((shared_mount / "in" / "file").exists)
    done = fleet.docker(
        "run", "--name", "not", "-v", "/etc:/s:rshared", "busybox", "true", code=125
    )
    assert "not a shared mount" in done.err


def test_every_other_caller_is_refused(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    """Also the operators' own token without the scope `admin`, and who acts for a tenant."""
    wishes: dict[str, object] = {
        "Privileged": True,
        "PidMode": "host",
        "NetworkMode": "host",
        "CapAdd": ["ALL", "SYS_ADMIN"],
        "SecurityOpt": ["seccomp=unconfined"],
        "MaskedPaths": [],
        "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1}],
        "Binds": ["/etc:/host:rshared"],
    }
    ann, _ = tenants
    ann.docker("run", "-d", "--name", "box", "busybox", "sleep", "600")
    try:
        with ann.http() as http:
            for field, value in wishes.items():
                body = {"Image": "busybox", "HostConfig": {field: value}}
                answer = http.post("/containers/create", json=body)
                assert answer.status_code == 403, f"{field}: {answer.text}"
                assert field in answer.json()["message"]
            answer = http.post("/containers/box/exec", json={"Cmd": ["id"], "Privileged": True})
            assert answer.status_code == 403
            assert "Privileged" in answer.json()["message"]
    finally:
        ann.docker("rm", "-f", "box")
    env = {**fleet.env, "DOCKER_CONFIG": str(_acting(fleet, ann.name))}
    done = fleet.docker("create", "--privileged", "busybox", code=1, env=env)
    assert "HostConfig.Privileged" in done.err


def _acting(fleet: Fleet, tenant: str) -> Path:
    place = fleet.config.parent / f"acting-{tenant}"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"HttpHeaders": {"Labfleet-Tenant": tenant}}))
    return place


def test_real_time_for_as_long_as_was_asked(fleet: Fleet) -> None:
    """A process takes a real-time priority in a group that was given time for it, and in no other."""
    given = ("--cpu-rt-period", "1000000", "--cpu-rt-runtime", "9500")
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        assert "real-time scheduler" in fleet.docker("run", *given, "busybox", code=125).err
        return
    priority = os.sched_param(5)
    for name, flags in (("hurried", given), ("patient", ())):
        fleet.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "600")
    os.sched_setscheduler(fleet.inspect("hurried")["State"]["Pid"], os.SCHED_FIFO, priority)
    with pytest.raises(PermissionError):
        os.sched_setscheduler(fleet.inspect("patient")["State"]["Pid"], os.SCHED_FIFO, priority)
    host = fleet.inspect("hurried")["HostConfig"]
    assert (host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]) == (1_000_000, 9500)
