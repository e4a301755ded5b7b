"""The flags of `docker run` in groups, seen from inside and by inspect."""

import json

import pytest
from tests.farm.fleet import Fleet
from tests.farm.tenant import Tenant


def _run(fleet: Fleet, *words: str) -> list[str]:
    """Lines that a container with these flags prints."""
    return fleet.docker("run", "--rm", *words).out.splitlines()


def _keep(fleet: Fleet, *flags: str) -> dict:
    fleet.docker("create", "--name", "box", *flags, "busybox", "true")
    return fleet.inspect("box")


def test_identity(fleet: Fleet) -> None:
    script = "hostname; id -u; id -g; id -G; pwd; echo $A $B; cat /etc/hosts /etc/resolv.conf"
    lines = _run(
        fleet, "--hostname", "web1", "--domainname", "lab.example", "-u", "1000:1001",
        "--group-add", "2000", "-w", "/tmp", "-e", "A=one", "-e", "B=two", "--add-host",
        "db:192.0.2.7", "--dns-search", "lab.example", "--dns-option", "timeout:3",
        "--entrypoint", "sh", "busybox", "-c", script,
    )  # fmt: skip
    assert lines[:3] == ["web1", "1000", "1001"]
    assert set(lines[3].split()) == {"1001", "2000"}
    assert lines[4:6] == ["/tmp", "one two"]
    assert "192.0.2.7\tdb" in lines
    assert any(line.endswith("\tweb1.lab.example web1") for line in lines)
    assert "search lab.example" in lines
    assert lines[-1] == "options ndots:0 timeout:3"
    about = _keep(
        fleet, "--label", "a=b", "--dns-option", "timeout:3", "--add-host", "db:192.0.2.7"
    )
    assert about["Config"]["Labels"]["a"] == "b"
    assert about["HostConfig"]["DnsOptions"] == ["timeout:3"]
    assert about["HostConfig"]["ExtraHosts"] == ["db:192.0.2.7"]


def test_resources(fleet: Fleet) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -c; df -k /dev/shm | tail -1; nproc; cat /proc/self/oom_score_adj"
    lines = _run(
        fleet, "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "16m",
        "--cpuset-cpus", "0", "--oom-score-adj", "300", "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert lines[:3] == ["100", "200", "0"]
    assert lines[3].split()[1] == "16384"
    assert lines[4:] == ["1", "300"]
    done = fleet.docker("create", "--name", "warned", "--memory", "64m", "--memory-swap", "128m",
                        "--oom-kill-disable", "busybox", "true")  # fmt: skip
    assert "Memory limited without swap" in done.err
    assert "OomKillDisable discarded" in done.err
    about = _keep(fleet, "--memory", "64m", "--memory-reservation", "32m", "--cpus", "0.5",
                  "--cpu-shares", "512", "--pids-limit", "50", "--blkio-weight", "300", "--ulimit",
                  "core=0:1")["HostConfig"]  # fmt: skip
    assert (about["Memory"], about["MemoryReservation"]) == (64 << 20, 32 << 20)
    assert (about["NanoCpus"], about["CpuShares"], about["PidsLimit"]) == (500_000_000, 512, 50)
    assert about["BlkioWeight"] == 300
    assert about["Ulimits"] == [{"Name": "core", "Soft": 0, "Hard": 1}]
    asked = ("--cpu-period", "50000", "--cpu-quota", "25000")
    fleet.docker("create", "--name", "quota", *asked, "busybox", "true")
    about = fleet.inspect("quota")["HostConfig"]
    assert (about["CpuPeriod"], about["CpuQuota"], about["NanoCpus"]) == (50_000, 25_000, 0)


def test_network(fleet: Fleet) -> None:
    fleet.docker("network", "create", "--subnet", "172.31.0.0/16", "lab")
    fleet.docker("run", "-d", "--name", "db", "--network", "lab", "busybox", "sleep", "600")
    lines = _run(
        fleet, "--network", "lab", "--ip", "172.31.9.9", "--mac-address", "02:aa:bb:cc:dd:01",
        "--link", "db:store", "busybox", "sh", "-c",
        "cat /sys/class/net/eth0/address; ip -o -4 addr show eth0; nslookup -type=a store",
    )  # fmt: skip
    assert lines[0] == "02:aa:bb:cc:dd:01"
    assert "172.31.9.9/16" in lines[1]
    address = fleet.inspect("db")["NetworkSettings"]["Networks"]["lab"]["IPAddress"]
    assert any(address in line for line in lines[2:])
    fleet.docker("run", "-d", "--name", "web", "-p", "28080-28082:80", "--expose", "90-91", "busybox",
                 "sleep", "600")  # fmt: skip
    fleet.docker("run", "-d", "--name", "next", "-p", "28080-28082:80", "busybox", "sleep", "600")
    first, second = (
        fleet.docker("port", name, "80").out.splitlines()[0] for name in ("web", "next")
    )
    assert (first, second) == ("0.0.0.0:28080", "0.0.0.0:28081")
    assert sorted(fleet.inspect("web")["Config"]["ExposedPorts"]) == ["80/tcp", "90/tcp", "91/tcp"]
    assert fleet.inspect("web")["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "28080-28082"}]
    }


def test_links_and_link_local_addresses(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "db", "-e", "FOO=1", "busybox", "sleep", "600")
    fleet.docker("run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "600")
    out = fleet.docker("exec", "web", "env").out.splitlines()
    assert {"STORE_NAME=/web/store", "STORE_ENV_FOO=1"} <= set(out)
    assert fleet.inspect("web")["HostConfig"]["Links"] == ["/db:/web/store"]
    fleet.docker("rm", "--link", "web/store")
    assert fleet.inspect("web")["HostConfig"]["Links"] in ([], None)
    assert "Cannot get parent" in fleet.docker("rm", "--link", "web/store", code=1).err
    fleet.docker("network", "create", "lab")
    lines = _run(fleet, "--network", "lab", "--link-local-ip", "169.254.8.8", "busybox", "ip", "-o",
                 "-4", "addr", "show", "eth0")  # fmt: skip
    assert any("169.254.8.8/16" in line for line in lines)


def test_storage(fleet: Fleet) -> None:
    fleet.docker("run", "--name", "first", "-v", "data:/data", "--mount",
                 "type=tmpfs,target=/mem,tmpfs-size=1m,tmpfs-mode=1770", "busybox", "sh", "-c",
                 "mkdir -p /data/in/side && echo deep > /data/in/side/f && stat -c %a /mem"
                 )  # fmt: skip
    assert fleet.docker("logs", "first").out == "1770"
    assert _run(fleet, "--volumes-from", "first:ro", "busybox", "sh", "-c",
                "cat /data/in/side/f; touch /data/x || echo ro") == ["deep", "ro"]  # fmt: skip
    mount = "type=volume,source=data,target=/d,volume-subpath=in/side"
    assert _run(fleet, "--mount", mount, "busybox", "cat", "/d/f") == ["deep"]
    bad = "type=volume,source=data,target=/d,volume-subpath=not/there"
    refused = fleet.docker("run", "--rm", "--mount", bad, "busybox", "true", code=None)
    assert refused.code != 0
    assert "cannot access path not/there" in refused.err
    assert _run(fleet, "--tmpfs", "/t:size=2m,mode=700", "--read-only", "busybox", "sh", "-c",
                "df -k /t | tail -1 | awk '{print $2}'; touch /x || echo ro") == ["2048", "ro"]  # fmt: skip
    about = fleet.inspect("first")
    assert about["HostConfig"]["Binds"] == ["data:/data"]
    assert about["HostConfig"]["Mounts"][0]["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o1770,
    }
    assert sorted(each["Destination"] for each in about["Mounts"]) == ["/data", "/mem"]


def test_lifecycle(fleet: Fleet) -> None:
    lines = _run(fleet, "--init", "--stop-signal", "SIGINT", "--stop-timeout", "3", "busybox", "ps")
    assert any("docker-init" in line for line in lines)
    about = _keep(fleet, "--stop-signal", "SIGINT", "--stop-timeout", "3", "-i", "-t", "--runtime",
                  "runc", "--annotation", "a=b", "--platform", "linux/amd64")  # fmt: skip
    assert (about["Config"]["StopSignal"], about["Config"]["StopTimeout"]) == ("SIGINT", 3)
    assert (about["Config"]["OpenStdin"], about["Config"]["Tty"]) == (True, True)
    assert about["HostConfig"]["Runtime"] == "runc"
    assert about["HostConfig"]["Annotations"] == {"a": "b"}


def test_security(fleet: Fleet, tenants: tuple[Tenant, Tenant]) -> None:
    script = "grep -E 'NoNewPrivs|CapEff' /proc/self/status; cat /proc/sys/net/core/somaxconn"
    lines = _run(fleet, "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--cap-add",
                 "CHOWN", "--sysctl", "net.core.somaxconn=99", "busybox", "sh", "-c",
                 script)  # fmt: skip
    assert [line.split()[-1] for line in lines] == ["0000000000000001", "1", "99"]
    ann = tenants[0]
    status = ann.docker(
        "run", "--rm", "--cap-add", "ALL", "busybox", "grep", "CapEff", "/proc/self/status"
    ).out
    assert not int(status.split()[1], 16) >> 21 & 1
    about = _keep(fleet, "--security-opt", "no-new-privileges", "--cap-add", "NET_RAW")[
        "HostConfig"
    ]
    assert (about["SecurityOpt"], about["CapAdd"]) == (["no-new-privileges"], ["CAP_NET_RAW"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gpus", "all"], 'could not select device driver "" with capabilities: [[gpu]]'),
        (["--storage-opt", "size=1g"], "pquota"),
        (["--runtime", "kata"], "unknown or invalid runtime name: kata"),
        (["--security-opt", "apparmor=mine"], "HostConfig.SecurityOpt"),
        (["--security-opt", "systempaths=unconfined"], "the fleet's own paths stay"),
        (["--device-read-bps", "/dev/sda:1mb"], "HostConfig.BlkioDeviceReadBps"),
        (["--cpu-rt-runtime", "1000"], "HostConfig.CpuRealtimeRuntime"),
        (["--volume-driver", "nfs", "-v", "a1:/a"], 'plugin "nfs" not found'),
        (["--cap-add", "NO_SUCH"], "unknown capability"),
        (["--cgroupns", "host"], "HostConfig.CgroupnsMode"),
        (["--uts", "host"], "HostConfig.UTSMode"),
        (["--mac-address", "01:aa:bb:cc:dd:01"], "invalid MAC address"),
        (["--volumes-from", "nosuch"], "No such container: nosuch"),
    ],
)
def test_a_flag_that_is_refused_is_named(
    fleet: Fleet,  # noqa: ARG001 - empty again afterwards
    tenants: tuple[Tenant, Tenant],
    flags: list[str],
    words: str,
) -> None:
    """To a tenant; `test_operators` has what operators may."""
    ann = tenants[0]
    done = ann.docker("create", *flags, "busybox", "true", code=None)
    assert done.code != 0
    assert words in done.err
    assert ann.docker("ps", "-aq").out == ""


def test_volumes_with_options(fleet: Fleet) -> None:
    fleet.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "o=size=8m,mode=1777", "mem")
    fleet.docker("volume", "create", "--opt", "o=size=16m", "disk")
    script = "df -k /v | tail -1 | awk '{print $2}'; echo kept > /v/f"
    assert _run(fleet, "-v", "mem:/v", "busybox", "sh", "-c", script) == ["8192"]
    (size,) = _run(fleet, "-v", "disk:/v", "busybox", "sh", "-c", script)
    assert 8_000 < int(size) <= 16_384
    full = fleet.docker("run", "--rm", "-v", "disk:/v", "busybox", "dd", "if=/dev/zero", "of=/v/x",
                        "bs=1M", "count=32", code=1)  # fmt: skip
    assert "No space left on device" in full.err
    assert _run(fleet, "-v", "disk:/v", "busybox", "cat", "/v/f") == ["kept"]
    about = json.loads(fleet.docker("volume", "inspect", "disk").out)[0]
    assert about["Options"] == {"o": "size=16m"}
    refused = fleet.docker("volume", "create", "--opt", "odd=1", "bad", code=1)
    assert "invalid option" in refused.err
    fleet.docker("volume", "rm", "mem", "disk")


def test_volumes_are_pruned(fleet: Fleet) -> None:
    fleet.docker("volume", "create", "named")
    fleet.docker("volume", "create", "--label", "keep=1", "kept")
    anonymous = fleet.docker("volume", "create").out
    fleet.docker("create", "-v", "used:/u", "busybox", "true")
    assert fleet.docker("volume", "prune", "-f").out.splitlines()[1] == anonymous
    out = fleet.docker("volume", "prune", "-f", "-a", "--filter", "label!=keep").out
    assert "named" in out
    assert sorted(fleet.docker("volume", "ls", "-q").out.split()) == ["kept", "used"]
