"""Create: request, image and defaults merged, after docker's rules."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from tests.unit.proto.records import container_id

from labfleet_api.core import create
from labfleet_api.core.attachments import (
    EndpointWish,
    checked_mac,
    parse_link,
    shared_with,
    wanted_networks,
)
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.create import constraints
from labfleet_api.core.image_defaults import ImageDefaults, image_defaults
from labfleet_api.core.mounts import inherited
from labfleet_api.core.platforms import check_platform
from labfleet_proto.containers import ContainerSpec, NetworkAttachment, PortBinding, VolumeMount
from labfleet_proto.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotImplementedYetError,
)
from labfleet_proto.ids import NetworkId

IMAGE = ImageDefaults(command=("sh",))
MIB = 1 << 20


def specification(image: ImageDefaults = IMAGE, **fields: Any) -> ContainerSpec:
    numbers: Iterator[int] = count(1)
    return create.specification(
        container_id(0xABC),
        CreateBody.model_validate({"Image": "busybox", **fields}),
        image,
        (),
        new_volume=lambda: f"anonymous{next(numbers)}",
    )


def with_host(image: ImageDefaults = IMAGE, **fields: Any) -> ContainerSpec:
    return specification(image, HostConfig=fields)


# -- the command


@pytest.mark.parametrize(
    ("asked", "entrypoint", "command"),
    [
        ({}, ("/entry",), ("serve", "-v")),
        ({"Cmd": []}, ("/entry",), ("serve", "-v")),
        ({"Cmd": ["ls"]}, ("/entry",), ("ls",)),
        ({"Entrypoint": ["/other"]}, ("/other",), ()),
        ({"Entrypoint": ["/other"], "Cmd": ["ls"]}, ("/other",), ("ls",)),
        ({"Entrypoint": [""], "Cmd": ["ls"]}, (), ("ls",)),
        ({"Entrypoint": "", "Cmd": ["ls"]}, (), ("ls",)),
        ({"Entrypoint": [], "Cmd": ["ls"]}, (), ("ls",)),
        ({"Entrypoint": []}, (), ("serve", "-v")),
        ({"Entrypoint": "/other -x"}, ("/other -x",), ()),
        ({"Cmd": "ls"}, ("/entry",), ("ls",)),
    ],
)
def test_the_command_line_follows_dockers_merge(
    asked: dict[str, Any], entrypoint: tuple[str, ...], command: tuple[str, ...]
) -> None:
    spec = specification(ImageDefaults(entrypoint=("/entry",), command=("serve", "-v")), **asked)
    assert (spec.entrypoint, spec.command) == (entrypoint, command)


@pytest.mark.parametrize(
    ("image", "asked"),
    [(ImageDefaults(), {}), (IMAGE, {"Entrypoint": [""]}), (IMAGE, {"Entrypoint": ""})],
)
def test_nothing_to_run_is_refused(image: ImageDefaults, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="no command specified"):
        specification(image, **asked)


@pytest.mark.parametrize(("asked", "words"), [("a\0b", "NUL"), ("x" * (129 << 10), "longer than")])
def test_an_argument_that_the_kernel_would_refuse_is_refused(asked: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"Cmd: .*{words}"):
        specification(Cmd=["echo", asked])


# -- the environment


@pytest.mark.parametrize(
    ("asked", "merged"),
    [
        ([], ("PATH=/bin", "LANG=C")),
        (["A=1"], ("PATH=/bin", "LANG=C", "A=1")),
        (["LANG=de"], ("PATH=/bin", "LANG=de")),
        (["LANG"], ("PATH=/bin", "LANG")),
        (["LANG="], ("PATH=/bin", "LANG=")),
        (["A=1=2", "A=3"], ("PATH=/bin", "LANG=C", "A=3")),
    ],
)
def test_the_environment_is_merged_by_name(asked: list[str], merged: tuple[str, ...]) -> None:
    image = ImageDefaults(command=("sh",), env=("PATH=/bin", "LANG=C"))
    assert specification(image, Env=asked).env == merged


@pytest.mark.parametrize("entry", ["=1", "A=\0"])
def test_an_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(InvalidRequestError):
        specification(Env=[entry])


# -- words of the request over words of the image


def test_the_request_goes_before_the_image() -> None:
    image = ImageDefaults(
        command=("sh",),
        working_dir="/srv",
        user="app",
        labels=(("a", "1"), ("b", "1")),
        stop_signal="SIGQUIT",
    )
    plain = specification(image)
    assert (plain.working_dir, plain.user, plain.stop_signal) == ("/srv", "app", "SIGQUIT")
    spec = specification(
        image, WorkingDir="/tmp", User="0", StopSignal="INT", Labels={"b": "2", "c": "3"}
    )
    assert (spec.working_dir, spec.user, spec.stop_signal) == ("/tmp", "0", "INT")
    assert spec.labels == {"a": "1", "b": "2", "c": "3"}


def test_without_any_words_the_defaults_hold() -> None:
    spec = specification()
    assert (spec.working_dir, spec.user, spec.stop_signal) == ("/", "", "SIGTERM")


def test_a_relative_working_directory_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="absolute path"):
        specification(WorkingDir="srv")


def test_the_images_config_is_read() -> None:
    config = {
        "config": {
            "Env": ["A=1"],
            "Entrypoint": ["/e"],
            "Cmd": ["c"],
            "WorkingDir": "/w",
            "User": "u",
            "Labels": {"l": "1"},
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
        }
    }
    assert image_defaults(config) == ImageDefaults(
        env=("A=1",),
        entrypoint=("/e",),
        command=("c",),
        working_dir="/w",
        user="u",
        labels=(("l", "1"),),
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        stop_signal="SIGINT",
    )


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {"Env": None, "Cmd": None}}])
def test_an_image_that_says_nothing_has_no_defaults(config: dict[str, Any]) -> None:
    assert image_defaults(config) == ImageDefaults()


# -- limits


def test_limits_cannot_be_left_out() -> None:
    limits = specification().limits
    assert limits.memory_bytes == 512 * MIB
    assert limits.cpu_millis == 1000
    assert limits.pids == 512
    assert limits.shm_bytes == 64 * MIB
    assert limits.nofile == 20_000


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({"Memory": 6 * MIB}, "memory_bytes", 6 * MIB),
        ({"NanoCpus": 1_500_000_000}, "cpu_millis", 1500),
        ({"NanoCpus": 10_000_000}, "cpu_millis", 10),
        ({"CpuQuota": 50_000}, "cpu_millis", 500),
        ({"CpuQuota": 50_000, "CpuPeriod": 50_000}, "cpu_millis", 1000),
        ({"CpuQuota": 1000, "CpuPeriod": 1_000_000}, "cpu_millis", 10),
        ({"CpuQuota": -1}, "cpu_millis", 1000),
        ({"PidsLimit": 20}, "pids", 20),
        ({"PidsLimit": 0}, "pids", 512),
        ({"PidsLimit": -1}, "pids", 512),
        ({"PidsLimit": -2}, "pids", 512),
        ({"CpuShares": 512}, "cpu_shares", 512),
        ({"CpusetCpus": "0-1,3"}, "cpuset_cpus", "0-1,3"),
        ({"ShmSize": MIB}, "shm_bytes", MIB),
        ({"MemoryReservation": 8 * MIB}, "memory_reservation_bytes", 8 * MIB),
        ({"BlkioWeight": 300}, "blkio_weight", 300),
        ({"CpusetMems": "0"}, "cpuset_mems", "0"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 10}]}, "nofile", 10),
        ({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 1 << 20}]}, "nofile", 20_000),
        ({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]}, "nofile", 20_000),
    ],
)
def test_a_limit_is_taken(asked: dict[str, Any], field: str, value: object) -> None:
    assert getattr(with_host(**asked).limits, field) == value


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"Memory": 6 * MIB - 1}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": -1}, "HostConfig.Memory: -1 is negative"),
        ({"NanoCpus": -1}, "HostConfig.NanoCpus: -1 is negative"),
        ({"NanoCpus": 9_999_999}, "NanoCpus: the least is 0.01"),
        ({"CpuPeriod": -1}, "CpuPeriod"),
        ({"CpuShares": -1}, "CpuShares"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"CpuQuota": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"CpuPeriod": 999}, "CPU cfs period"),
        ({"CpuQuota": 1000, "CpuPeriod": 999}, "CPU cfs period"),
        ({"CpuQuota": 1000, "CpuPeriod": 1_000_001}, "CPU cfs period"),
        ({"CpusetCpus": "first"}, "cpuset cpus"),
        ({"CpusetCpus": "0-"}, "cpuset cpus"),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 20, "Hard": 10}]},
            "soft limit must be less than or equal",
        ),
        ({"Ulimits": [{"Name": "nofile", "Soft": -2, "Hard": -2}]}, "invalid ulimit value"),
        ({"Ulimits": [{"Name": "odd", "Soft": 0, "Hard": 0}]}, "invalid ulimit type: odd"),
        ({"Memory": 8 * MIB, "MemorySwap": 7 * MIB}, "memoryswap limit should be larger"),
        ({"MemorySwap": 8 * MIB}, "always set the Memory limit when using Memoryswap"),
        ({"MemoryReservation": MIB}, "Minimum memory reservation allowed is 6MB"),
        ({"Memory": 8 * MIB, "MemoryReservation": 9 * MIB}, "less than memory reservation limit"),
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"OomScoreAdj": 1001}, "range for oom score adj"),
        ({"BlkioWeight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"CpusetMems": "first"}, "cpuset mems"),
    ],
)
def test_a_wrong_limit_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        with_host(**asked)


# -- mounts


@pytest.mark.parametrize(
    ("bind", "mount"),
    [
        ("data:/data", VolumeMount(volume="data", target="/data")),
        ("data:/data:rw", VolumeMount(volume="data", target="/data")),
        ("data:/data:ro,z", VolumeMount(volume="data", target="/data", read_only=True)),
        ("data:/data:nocopy", VolumeMount(volume="data", target="/data", copy_up=False)),
        ("data:/a//b/./c/", VolumeMount(volume="data", target="/a/b/c")),
        ("/data", VolumeMount(volume="anonymous1", target="/data", is_anonymous=True)),
    ],
)
def test_a_bind_names_a_volume(bind: str, mount: VolumeMount) -> None:
    assert with_host(Binds=[bind]).mounts == (mount,)


@pytest.mark.parametrize("source", ["/etc", "/", "./data", "../data", "~/data", "/var/run/x.sock"])
def test_a_path_of_the_host_is_forbidden(source: str) -> None:
    with pytest.raises(ForbiddenError, match=r"HostConfig\.Binds: .* host paths"):
        with_host(Binds=[f"{source}:/data"])
    with pytest.raises(ForbiddenError, match=r"HostConfig\.Mounts: .* host paths"):
        with_host(Mounts=[{"Type": "bind", "Source": source, "Target": "/data"}])


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        (":/data", "invalid volume specification"),
        ("a:/b:ro:x", "invalid volume specification"),
        ("data:data", "must be absolute"),
        ("data:/", "destination can't be '/'"),
        ("data:/a/../..", "destination can't be"),
        ("data:/data:wild", "invalid mode: wild"),
        ("d:/data", "too short"),
        ("da*ta:/data", "invalid characters"),
    ],
)
def test_a_malformed_bind_is_refused(bind: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        with_host(Binds=[bind])


def test_a_mount_names_a_volume() -> None:
    spec = with_host(
        Mounts=[
            {"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": True},
            {"Type": "volume", "Target": "/new", "VolumeOptions": {"NoCopy": True}},
        ]
    )
    assert spec.mounts == (
        VolumeMount(volume="data", target="/data", read_only=True),
        VolumeMount(volume="anonymous1", target="/new", copy_up=False, is_anonymous=True),
    )


def test_an_unknown_type_of_mount_is_not_there_yet() -> None:
    with pytest.raises(NotImplementedYetError, match=r"Mounts of type image"):
        with_host(Mounts=[{"Type": "image", "Source": "a", "Target": "/a"}])


def test_volumes_of_image_and_request_are_anonymous_where_nothing_is_mounted() -> None:
    image = ImageDefaults(command=("sh",), volumes=("/data", "/log", "/tmp/x"))
    spec = specification(
        image,
        Volumes={"/own": {}, "/data": {}},
        HostConfig={"Binds": ["named:/log"], "Tmpfs": {"/tmp/x": ""}},
    )
    assert {mount.target: mount.volume for mount in spec.mounts} == {
        "/log": "named",
        "/own": "anonymous1",
        "/data": "anonymous2",
    }


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["one:/data", "two:/data/"]},
        {"Binds": ["one:/data"], "Mounts": [{"Source": "two", "Target": "/data"}]},
        {"Binds": ["one:/data"], "Tmpfs": {"/data": ""}},
        {"Binds": ["one:/data"], "Mounts": [{"Type": "tmpfs", "Target": "/data"}]},
    ],
)
def test_two_mounts_at_one_place_are_refused(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="Duplicate mount point: /data"):
        with_host(**host)


@pytest.mark.parametrize(
    ("host", "tmpfs"),
    [
        ({"Tmpfs": {"/run/": "size=64m,mode=755"}}, {"/run": "size=64m,mode=755"}),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/run"}]}, {"/run": ""}),
        (
            {
                "Mounts": [
                    {
                        "Type": "tmpfs",
                        "Target": "/run",
                        "ReadOnly": True,
                        "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o1770},
                    }
                ]
            },
            {"/run": "size=4096,mode=1770,ro"},
        ),
    ],
)
def test_tmpfs_of_both_kinds(host: dict[str, Any], tmpfs: dict[str, str]) -> None:
    spec = with_host(**host)
    assert spec.tmpfs == tmpfs
    assert spec.mounts == ()


# -- ports


def test_ports_of_image_request_and_bindings_are_exposed() -> None:
    image = ImageDefaults(command=("sh",), exposed_ports=("80/tcp", "53/udp"))
    spec = specification(
        image, ExposedPorts={"80": {}, "443/tcp": {}}, HostConfig={"PortBindings": {"22/tcp": []}}
    )
    assert spec.exposed_ports == ("80/tcp", "53/udp", "443/tcp", "22/tcp")


@pytest.mark.parametrize(
    ("targets", "address", "port"),
    [
        ([{"HostPort": "8080"}], "0.0.0.0", 8080),  # noqa: S104 - docker's default
        ([{"HostPort": 8080}], "0.0.0.0", 8080),  # noqa: S104 - docker's default
        ([{"HostIp": "127.0.0.1", "HostPort": "8080"}], "127.0.0.1", 8080),
        ([{"HostIp": "::", "HostPort": "8080"}], "0.0.0.0", 8080),  # noqa: S104 - docker's default
        ([{"HostPort": ""}], "0.0.0.0", None),  # noqa: S104 - docker's default
        ([{"HostPort": "0"}], "0.0.0.0", None),  # noqa: S104 - docker's default
        ([], "0.0.0.0", None),  # noqa: S104 - docker's default
        (None, "0.0.0.0", None),  # noqa: S104 - docker's default
    ],
)
def test_a_port_is_bound(targets: list[dict[str, Any]] | None, address: str, port: int) -> None:
    spec = with_host(PortBindings={"80/tcp": targets})
    assert spec.ports == (PortBinding(container_port=80, host_address=address, host_port=port),)


def test_one_port_may_be_bound_twice() -> None:
    spec = with_host(PortBindings={"53/udp": [{"HostPort": "1053"}, {"HostPort": "2053"}]})
    assert [(each.protocol, each.host_port) for each in spec.ports] == [
        ("udp", 1053),
        ("udp", 2053),
    ]


def test_publish_all_binds_what_is_exposed_and_not_bound() -> None:
    image = ImageDefaults(command=("sh",), exposed_ports=("80/tcp", "53/udp"))
    spec = with_host(image, PublishAllPorts=True, PortBindings={"80/tcp": [{"HostPort": "8080"}]})
    assert [(each.container_port, each.protocol, each.host_port) for each in spec.ports] == [
        (80, "tcp", 8080),
        (53, "udp", None),
    ]


@pytest.mark.parametrize("name", ["0/tcp", "65536", "http", "80/icmp", "", "-1"])
def test_a_malformed_port_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid port specification"):
        specification(ExposedPorts={name: {}})
    with pytest.raises(InvalidRequestError, match="invalid port specification"):
        with_host(PortBindings={name: [{"HostPort": "80"}]})


@pytest.mark.parametrize("port", ["65536", "http", -1, "²", "80 "])
def test_a_malformed_host_port_is_refused(port: str | int) -> None:
    with pytest.raises(InvalidRequestError, match="invalid port specification"):
        with_host(PortBindings={"80/tcp": [{"HostPort": port}]})


def test_a_range_of_host_ports_is_one_to_choose_from() -> None:
    spec = with_host(PortBindings={"80/tcp": [{"HostPort": "8080-8090"}]})
    (binding,) = spec.ports
    assert (binding.host_port, binding.host_port_first, binding.host_port_last) == (
        None,
        8080,
        8090,
    )


@pytest.mark.parametrize("port", ["8090-8080", "0-80", "80-65536", "-80"])
def test_a_range_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid port specification"):
        with_host(PortBindings={"80/tcp": [{"HostPort": port}]})


def test_a_range_is_exposed_port_by_port() -> None:
    spec = specification(ExposedPorts={"80-82/udp": {}, "9": {}})
    assert spec.exposed_ports == ("80/udp", "81/udp", "82/udp", "9/tcp")
    for name in ("90-80/tcp", "80-65536", "80-x", "-"):
        with pytest.raises(InvalidRequestError, match="invalid port specification"):
            specification(ExposedPorts={name: {}})


def test_sctp_is_published() -> None:
    (binding,) = with_host(PortBindings={"80/sctp": [{"HostPort": "80"}]}).ports
    assert binding.protocol == "sctp"


def test_a_host_address_is_an_address() -> None:
    with pytest.raises(InvalidRequestError, match="invalid IP address: here"):
        with_host(PortBindings={"80/tcp": [{"HostIp": "here"}]})


def test_limits_of_processes_are_kept_by_name() -> None:
    spec = with_host(
        Ulimits=[
            {"Name": "nofile", "Soft": 100, "Hard": 200},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "RLIMIT_NPROC", "Soft": 10, "Hard": -1},
        ]
    )
    assert [(each.name, each.soft, each.hard) for each in spec.ulimits] == [
        ("nofile", 100, 200),
        ("core", 0, 0),
        ("nproc", 10, -1),
    ]
    assert spec.limits.nofile == 200


def test_volumes_of_other_containers() -> None:
    other = with_host(Binds=["data:/data", "log:/log"], Tmpfs={"/run": ""})
    found = inherited([("web:ro", other)])
    assert [(each.volume, each.target, each.read_only) for each in found] == [
        ("data", "/data", True),
        ("log", "/log", True),
    ]
    spec = create.specification(
        container_id(1),
        CreateBody.model_validate({"HostConfig": {"Binds": ["own:/log"]}}),
        IMAGE,
        (),
        new_volume=lambda: "v",
        inherited=found,
    )
    assert {each.target: each.volume for each in spec.mounts} == {"/data": "data", "/log": "own"}
    with pytest.raises(InvalidRequestError, match="invalid mode: odd"):
        inherited([("web:odd", other)])


def test_a_mount_says_how_its_volume_is_made() -> None:
    options = {
        "Subpath": "in/side",
        "Labels": {"a": "b"},
        "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "o": "size=8m"}},
    }
    (mount,) = with_host(
        Mounts=[{"Type": "volume", "Source": "data", "Target": "/d", "VolumeOptions": options}]
    ).mounts
    assert (mount.subpath, mount.labels) == ("in/side", {"a": "b"})
    assert mount.driver_opts == {"type": "tmpfs", "o": "size=8m"}


@pytest.mark.parametrize("path", ["/abs", "..", "a/../../b", "a\0"])
def test_a_subpath_lies_within_the_volume(path: str) -> None:
    with pytest.raises(InvalidRequestError, match="relative path within the volume"):
        with_host(Mounts=[{"Source": "data", "Target": "/d", "VolumeOptions": {"Subpath": path}}])


@pytest.mark.parametrize("word", ["evil=1", "size=x", "mode=999", "bind"])
def test_an_unknown_option_of_a_tmpfs_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid tmpfs option"):
        with_host(Tmpfs={"/run": f"rw,{word}"})


def test_what_was_asked_is_kept_for_inspect() -> None:
    asked = {"Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}], "Links": ["a:b"], "Binds": []}
    spec = specification(HostConfig=asked, Shell=["sh"], OnBuild=["RUN x"], Labels={"a": "b"})
    assert spec.asked_host_config == {"Ulimits": asked["Ulimits"], "Links": ["a:b"]}
    assert spec.asked_config == {"Shell": ["sh"], "OnBuild": ["RUN x"]}


@pytest.mark.parametrize("text", ["", "linux/amd64", "linux", "amd64", "linux/x86_64"])
def test_a_platform_that_the_image_has(text: str) -> None:
    check_platform(text, "busybox", {"os": "linux", "architecture": "amd64"})


def test_a_platform_that_it_has_not() -> None:
    config: dict[str, Any] = {"os": "linux", "architecture": "amd64"}
    for text in ("linux/arm64", "windows/amd64", "linux/foobar"):
        with pytest.raises(NotFoundError, match="does not provide the specified platform"):
            check_platform(text, "busybox", config)
    for text in ("foobar", "a/b/c/d", "/", "linux/"):
        with pytest.raises(InvalidRequestError):
            check_platform(text, "busybox", config)


def test_a_container_without_network_publishes_nothing() -> None:
    with pytest.raises(InvalidRequestError, match="without network has no ports"):
        with_host(NetworkMode="none", PortBindings={"80/tcp": []})


# -- host name, stop, streams, flags


@pytest.mark.parametrize("name", ["web", "a", "w-1.lab.example", "A9", "x" * 63])
def test_a_hostname_is_taken(name: str) -> None:
    assert specification(Hostname=name).hostname == name


def test_the_default_hostname_is_the_short_id() -> None:
    assert specification().hostname == container_id(0xABC)[:12]


@pytest.mark.parametrize("name", ["-web", "web-", "we b", "we_b", "x" * 64, "web\n", "ü"])
def test_a_malformed_hostname_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid hostname format"):
        specification(Hostname=name)


@pytest.mark.parametrize(("asked", "seconds"), [(None, 10), (0, 0), (30, 30), (-1, 31_536_000)])
def test_the_stop_timeout_in_seconds(asked: int | None, seconds: int) -> None:
    assert specification(StopTimeout=asked).stop_timeout_s == seconds


def test_a_stop_timeout_below_minus_one_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="StopTimeout: -2"):
        specification(StopTimeout=-2)


def test_an_unknown_stop_signal_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="Invalid signal: NOSUCH"):
        specification(StopSignal="NOSUCH")


def test_attached_streams_are_kept_for_inspect() -> None:
    spec = specification(AttachStdin=True, AttachStderr=True, Tty=True, OpenStdin=True)
    assert spec.attach == ("stdin", "stderr")
    assert (spec.is_tty, spec.open_stdin) == (True, True)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ([], False),
        (["no-new-privileges"], True),
        (["no-new-privileges:true"], True),
        (["no-new-privileges=false"], False),
    ],
)
def test_no_new_privileges(options: list[str], *, value: bool) -> None:
    assert with_host(SecurityOpt=options).no_new_privileges is value


def test_capabilities_lose_their_prefix() -> None:
    spec = with_host(CapAdd=["cap_net_raw"], CapDrop=["CAP_CHOWN", "all"])
    assert (spec.cap_add, spec.cap_drop) == (("NET_RAW",), ("CHOWN", "ALL"))


# -- what is refused


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"CapAdd": ["SYS_ADMIN"]}, "CapAdd: SYS_ADMIN"),
        ({"Sysctls": {"kernel.panic": "1"}}, r"Sysctls: kernel\.panic"),
        ({"Privileged": True, "Invented": 1}, "Privileged"),
        (
            {
                "Mounts": [
                    {"Type": "bind", "Source": "/etc", "Target": "/e", "BindOptions": {"a": 1}}
                ]
            },
            "Mounts: /etc",
        ),
    ],
)
def test_what_is_forbidden_is_said_first(host: dict[str, Any], words: str) -> None:
    with pytest.raises(ForbiddenError, match=words):
        with_host(**host)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"LogConfig": {"Type": "syslog"}}, "LogConfig.Type syslog"),
        ({"Invented": 1}, "HostConfig.Invented"),
    ],
)
def test_what_is_not_there_yet_is_named(host: dict[str, Any], words: str) -> None:
    with pytest.raises(NotImplementedYetError, match=words):
        with_host(**host)


def test_a_health_check_is_taken_as_it_is() -> None:
    check = specification(Healthcheck={"Test": ["CMD", "true"], "Retries": 2}).healthcheck
    assert check is not None
    assert (check.argv, check.retries) == (("true",), 2)
    none = specification(Healthcheck={"Test": ["NONE"]}).healthcheck
    assert none is not None
    assert none.argv == ()


def test_what_dockers_client_sends_by_default_is_taken() -> None:
    """Body of `docker run busybox` of docker 28."""
    spec = specification(
        Hostname="",
        Env=None,
        Cmd=None,
        Entrypoint=None,
        OnBuild=None,
        Labels={},
        NetworkingConfig={"EndpointsConfig": {"default": {"IPAMConfig": None, "Links": None}}},
        HostConfig={
            "Binds": None,
            "ContainerIDFile": "/tmp/cid",
            "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default",
            "PortBindings": {},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "ConsoleSize": [24, 80],
            "BlkioWeight": 0,
            "BlkioWeightDevice": [],
            "Devices": [],
            "DnsOptions": [],
            "OomKillDisable": False,
            "PidsLimit": 0,
            "MemorySwappiness": -1,
            "MaskedPaths": None,
        },
    )
    assert spec.command == ("sh",)


@pytest.mark.parametrize(
    ("asked", "is_tty", "size"),
    [
        ([24, 80], True, (24, 80)),
        ([24, 80], False, (0, 0)),
        (None, True, (0, 0)),
        ([24], True, (0, 0)),
        ([-1, 1 << 20], True, (0, 65_535)),
    ],
)
def test_the_size_of_a_terminal(
    asked: list[int] | None, size: tuple[int, int], *, is_tty: bool
) -> None:
    spec = specification(Tty=is_tty, HostConfig={"ConsoleSize": asked})
    assert spec.terminal_size == size


# -- networks


@pytest.mark.parametrize("mode", ["default", "bridge", ""])
def test_the_empty_name_is_the_default_network(mode: str) -> None:
    body = CreateBody.model_validate({"HostConfig": {"NetworkMode": mode}})
    assert wanted_networks(body) == {"": EndpointWish()}


@pytest.mark.parametrize("mode", ["host", "ns:/proc/1/ns/net"])
def test_namespaces_are_never_shared(mode: str) -> None:
    with pytest.raises(ForbiddenError, match="NetworkMode"):
        wanted_networks(CreateBody.model_validate({"HostConfig": {"NetworkMode": mode}}))


@pytest.mark.parametrize("body", [{"HostConfig": {"NetworkMode": "none"}}, {"NetworkDisabled": 1}])
def test_no_network_at_all(body: dict[str, Any]) -> None:
    assert wanted_networks(CreateBody.model_validate(body)) == {}


def test_the_network_of_the_mode_comes_first_with_its_wishes() -> None:
    body = CreateBody.model_validate(
        {
            "HostConfig": {"NetworkMode": "front"},
            "NetworkingConfig": {
                "EndpointsConfig": {
                    "back": None,
                    "front": {
                        "Aliases": ["web"],
                        "IPAMConfig": {"IPv4Address": "10.100.1.9"},
                        "NetworkID": "of an earlier life",
                    },
                }
            },
        }
    )
    assert list(wanted_networks(body).items()) == [
        ("front", EndpointWish(aliases=("web",), address="10.100.1.9")),
        ("back", EndpointWish()),
    ]


def test_endpoints_without_a_mode_are_all_networks() -> None:
    """As docker: the default network is joined only by who names no other."""
    body = CreateBody.model_validate({"NetworkingConfig": {"EndpointsConfig": {"front": {}}}})
    assert wanted_networks(body) == {"front": EndpointWish()}


def test_everything_that_an_endpoint_may_say() -> None:
    endpoint = {
        "Links": ["db:store"],
        "MacAddress": "02-AA-00-00-00-01",
        "DriverOpts": {"a": "b"},
        "GwPriority": 7,
    }
    body = CreateBody.model_validate({"NetworkingConfig": {"EndpointsConfig": {"front": endpoint}}})
    assert wanted_networks(body)["front"] == EndpointWish(
        mac="02:aa:00:00:00:01",
        links=("db:store",),
        driver_opts={"a": "b"},
        gateway_priority=7,
    )


def test_the_containers_own_address_and_links_are_the_first_networks() -> None:
    body = CreateBody.model_validate(
        {
            "MacAddress": "02:aa:00:00:00:01",
            "HostConfig": {"NetworkMode": "front", "Links": ["/db:/web/store"]},
            "NetworkingConfig": {"EndpointsConfig": {"back": {}}},
        }
    )
    found = wanted_networks(body)
    assert found["front"] == EndpointWish(mac="02:aa:00:00:00:01", links=("/db:/web/store",))
    assert found["back"] == EndpointWish()
    assert parse_link("/db:/web/store") == ("db", "store")
    assert parse_link("db") == ("db", "db")


def test_two_different_mac_addresses_are_refused() -> None:
    body = CreateBody.model_validate(
        {
            "MacAddress": "02:aa:00:00:00:01",
            "HostConfig": {"NetworkMode": "front"},
            "NetworkingConfig": {"EndpointsConfig": {"front": {"MacAddress": "02:aa:00:00:00:02"}}},
        }
    )
    with pytest.raises(InvalidRequestError, match="container-wide MAC address must match"):
        wanted_networks(body)


@pytest.mark.parametrize(
    "mac", ["x", "02:aa:00:00:00", "01:aa:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]
)
def test_what_is_no_hardware_address_is_refused(mac: str) -> None:
    with pytest.raises(InvalidRequestError, match="invalid MAC address"):
        checked_mac(mac)


@pytest.mark.parametrize("link", ["", ":", "a:", ":b", "a:b:c"])
def test_what_is_no_link_is_refused(link: str) -> None:
    with pytest.raises(InvalidRequestError, match="bad format for links"):
        parse_link(link)


def test_the_network_of_another_container() -> None:
    body = CreateBody.model_validate({"HostConfig": {"NetworkMode": "container:web"}})
    assert wanted_networks(body) == {}
    assert shared_with(body) == "web"
    assert shared_with(CreateBody()) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Hostname": "a"}, "hostname and the network mode"),
        ({"MacAddress": "02:00:00:00:00:01"}, "mac-address and the network mode"),
        ({"ExposedPorts": {"80": {}}}, "port exposing"),
        ({"HostConfig": {"PortBindings": {"80": []}}}, "port publishing"),
        ({"HostConfig": {"Dns": ["192.0.2.1"]}}, "dns and the network mode"),
        ({"HostConfig": {"Links": ["a:b"]}}, "can't be used with links"),
        ({"HostConfig": {"ExtraHosts": ["a:192.0.2.1"]}}, "custom host-to-IP mapping"),
    ],
)
def test_what_cannot_go_with_another_containers_network(fields: dict[str, Any], words: str) -> None:
    host = {**fields.get("HostConfig", {}), "NetworkMode": "container:web"}
    body = CreateBody.model_validate({**fields, "HostConfig": host})
    with pytest.raises(InvalidRequestError, match=f"conflicting options: .*{words}"):
        shared_with(body)


def test_networks_and_mode_are_kept() -> None:
    wish = NetworkAttachment(network_id=NetworkId("n" * 64), network_name="front")
    spec = create.specification(
        container_id(1),
        CreateBody.model_validate({"HostConfig": {"NetworkMode": "front"}}),
        IMAGE,
        (wish,),
        new_volume=lambda: "v",
    )
    assert (spec.networks, spec.network_mode) == ((wish,), "front")


# -- constraints


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("", ()),
        ("zone==a", ("zone==a",)),
        (" zone==a , host!=h1,, ", ("zone==a", "host!=h1")),
    ],
)
def test_constraints_are_separated_by_commas(label: str, found: tuple[str, ...]) -> None:
    assert constraints({"labfleet.constraint": label}) == found


def test_without_the_label_there_are_no_constraints() -> None:
    assert constraints({"other": "zone==a"}) == ()
