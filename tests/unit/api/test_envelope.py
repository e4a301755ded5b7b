"""No create body of a tenant leads to a container outside the envelope of the design."""

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.proto.records import container_id

from labfleet_api.core import create
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_proto.errors import PermanentError
from labfleet_proto.privileges import GRANTABLE_CAPABILITIES, KNOWN_CAPABILITIES
from labfleet_runtime_agent.core import spec as oci
from labfleet_runtime_agent.core.spec import HostPart, Identity, VolumeSource

HOST = HostPart(
    rootfs="/rootfs",
    uid_base=1_000_000,
    netns_path="/run/netns/c",
    sysfs_path="",
    files={"/etc/hosts": "/bundle/hosts"},
    volumes=(),
    hard_nofile=20_000,
    hard_limits={"core": 0, "memlock": 65_536},
)
paths = st.sampled_from(
    ["/", "/etc", "/proc", "/proc/1/root", "/sys", "/dev", "/data", "data", "../x", "vol", ""]
)
words = st.sampled_from(
    ["", "host", "none", "private", "container:x", "ns:/proc/1/ns/net", "unconfined", "odd"]
)
numbers = st.integers(-2000, 1 << 34)
HOST_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "Privileged": st.booleans(),
    "CapAdd": st.lists(st.sampled_from([*sorted(KNOWN_CAPABILITIES), "ALL", "x"]), max_size=3),
    "CapDrop": st.lists(st.sampled_from([*sorted(KNOWN_CAPABILITIES), "ALL", "x"]), max_size=3),
    "SecurityOpt": st.lists(
        st.sampled_from(
            ["seccomp=unconfined", "seccomp={}", "apparmor=x", "no-new-privileges", "label=disable"]
        ),
        max_size=2,
    ),
    "Binds": st.lists(
        st.builds(lambda a, b, c: f"{a}:{b}{c}", paths, paths, st.sampled_from(["", ":ro", ":z"])),
        max_size=2,
    ),
    "Mounts": st.lists(
        st.fixed_dictionaries(
            {
                "Type": st.sampled_from(["bind", "volume", "tmpfs", "npipe", "image"]),
                "Source": paths,
                "Target": paths,
            }
        ),
        max_size=2,
    ),
    "Tmpfs": st.dictionaries(
        paths, st.sampled_from(["", "exec", "suid,dev", "size=1g"]), max_size=2
    ),
    "NetworkMode": words,
    "PidMode": words,
    "IpcMode": words,
    "UTSMode": words,
    "UsernsMode": words,
    "CgroupnsMode": words,
    "CgroupParent": paths,
    "Devices": st.lists(st.fixed_dictionaries({"PathOnHost": paths}), max_size=1),
    "DeviceCgroupRules": st.lists(st.just("c 1:3 rwm"), max_size=1),
    "BlkioDeviceReadBps": st.lists(st.just({"Path": "/dev/vda", "Rate": 1}), max_size=1),
    "BlkioWeightDevice": st.lists(st.just({"Path": "/dev/vda", "Weight": 10}), max_size=1),
    "Sysctls": st.dictionaries(
        st.sampled_from(["net.core.somaxconn", "kernel.panic", "vm.swappiness", "kernel.shmmax"]),
        st.just("1"),
        max_size=2,
    ),
    "MaskedPaths": st.none() | st.lists(paths, max_size=2),
    "ReadonlyPaths": st.none() | st.lists(paths, max_size=2),
    "Ulimits": st.lists(
        st.fixed_dictionaries(
            {
                "Name": st.sampled_from(["nofile", "core", "memlock"]),
                "Soft": numbers,
                "Hard": numbers,
            }
        ),
        max_size=2,
    ),
    "Memory": numbers,
    "NanoCpus": numbers,
    "PidsLimit": numbers,
    "OomScoreAdj": numbers,
    "Annotations": st.dictionaries(st.sampled_from(["run.oci.handler", "a"]), words, max_size=1),
    "Runtime": words,
}
bodies = st.fixed_dictionaries(
    {"HostConfig": st.fixed_dictionaries({}, optional=HOST_FIELDS)},
    optional={
        "Cmd": st.just(["sh"]),
        "WorkingDir": paths,
        "User": st.sampled_from(["", "0", "root:root"]),
        "Hostname": st.text(max_size=3),
        "Volumes": st.dictionaries(paths, st.just({}), max_size=1),
    },
)


@settings(max_examples=400, deadline=None)
@given(bodies)
def test_every_accepted_body_stays_within_the_envelope(fields: dict[str, Any]) -> None:
    with contextlib.suppress(PermanentError):  # a refusal is always right here
        body = CreateBody.model_validate({"Image": "busybox", **fields})
        spec = create.specification(
            container_id(1), body, ImageDefaults(command=("sh",)), (), new_volume=lambda: "v"
        )
        volumes = tuple(
            VolumeSource(f"/state/mounts/volume{number}", mount.target, mount.read_only)
            for number, mount in enumerate(spec.mounts)
        )
        part = HostPart(**{**HOST.__dict__, "volumes": volumes})
        _check(oci.build(spec, part, Identity(0, 0)))
        assert spec.powers is None
        assert spec.limits.memory_bytes > 0
        assert spec.limits.pids > 0
        assert spec.limits.cpu_millis > 0


def _check(config: dict[str, Any]) -> None:
    linux, process = config["linux"], config["process"]
    kinds = {each["type"] for each in linux["namespaces"]}
    assert kinds == {"pid", "network", "ipc", "uts", "mount", "user", "cgroup"}
    shared = {each["type"]: each["path"] for each in linux["namespaces"] if "path" in each}
    assert shared == {"network": "/run/netns/c"}
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1_000_000, "size": 65_536}]
    held = {name.removeprefix("CAP_") for each in process["capabilities"].values() for name in each}
    assert held <= GRANTABLE_CAPABILITIES
    assert linux["seccomp"]["defaultAction"] != "SCMP_ACT_ALLOW"
    assert set(oci.MASKED_PATHS) <= set(linux["maskedPaths"])
    assert set(oci.READONLY_PATHS) <= set(linux["readonlyPaths"])
    assert all(name.startswith(("net.", "kernel.shm")) for name in linux["sysctl"])
    assert not {"hooks", "annotations", "devices"} & (set(config) | set(linux))
    assert process.get("oomScoreAdj", 0) >= 0
    most = {"RLIMIT_NOFILE": 20_000, "RLIMIT_CORE": 0, "RLIMIT_MEMLOCK": 65_536}
    for limit in process["rlimits"]:
        assert 0 <= limit["soft"] <= limit["hard"] <= most[limit["type"]]
    for mount in config["mounts"]:
        source = mount["source"]
        assert not source.startswith("/") or source.startswith(("/state/", "/bundle/")), mount
        assert {"nosuid", "nodev"} & set(mount["options"]) or mount["destination"] == "/dev/pts"
        assert mount["destination"] not in ("/", "")
