"""Containers and execs run by the real crun under a real conmon."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.farm import one_host
from tests.farm.one_host import BASE
from tests.unit.proto.records import container_spec, limits

from labfleet_chassis.process import ProgramFailedError
from labfleet_cli import machine
from labfleet_proto.containers import ContainerSpec
from labfleet_proto.errors import CommandNotRunnableError, InternalError
from labfleet_proto.ids import ContainerId, ExecId
from labfleet_proto.runtime import CreateExec
from labfleet_runtime_agent.adapters import conmon, execs
from labfleet_runtime_agent.adapters.cgroups import Cgroups, detect
from labfleet_runtime_agent.adapters.conmon import Runtime, exit_code, sealed_copy
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.adapters.ledger import RunningProcess
from labfleet_runtime_agent.adapters.processes import is_alive
from labfleet_runtime_agent.adapters.snapshots import Snapshots
from labfleet_runtime_agent.core import spec as oci
from labfleet_runtime_agent.core.spec import HostPart, Identity

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

ROOT = Identity(0, 0, (), "/root")
ANN = Identity(1000, 1000, (10,), "/")
LIMITS = limits(memory_bytes=64 << 20, cpu_millis=2000, pids=64)


@dataclass
class Container:
    """A container that was created."""

    id: ContainerId
    spec: ContainerSpec
    host: HostPart
    bundle: Path
    log: Path
    running: RunningProcess

    def code(self) -> int | None:
        ended = exit_code(self.bundle, self.id)
        return None if ended is None else ended[0]

    def printed(self) -> list[str]:
        """Lines of its log, without the time and the stream."""
        return [line.split(" ", 3)[3] for line in self.log.read_text().splitlines()]

    def status(self, name: str) -> str:
        """A line of /proc/<pid>/status of its first process."""
        text = Path(f"/proc/{self.running.pid}/status").read_text()
        return next(line for line in text.splitlines() if line.startswith(f"{name}:"))[
            len(name) + 1 :
        ].strip()

    def is_alive(self) -> bool:
        return is_alive(self.running.pid, self.running.started_ticks)

    def is_watched(self) -> bool:
        return is_alive(self.running.monitor_pid, self.running.monitor_started_ticks)


@dataclass
class OneHost:
    """The parts that a start needs, as the agent puts them together."""

    home: Path
    runtime: Runtime
    snapshots: Snapshots
    cgroups: Cgroups
    netns: str
    layers: list[Path] = field(default_factory=list)
    made: list[ContainerId] = field(default_factory=list)
    to_learn: str = ""

    def next_id(self) -> ContainerId:
        container = ContainerId(f"{one_host.NAME}-{secrets.token_hex(4)}")
        self.made.append(container)
        return container

    async def prepare(
        self, container: ContainerId, spec: ContainerSpec, who: Identity = ROOT
    ) -> tuple[HostPart, dict[str, Any]]:
        """Make all that the container's bundle refers to; return its document."""
        root = await self.snapshots.prepare(container, self.layers, BASE)
        self.cgroups.make(container, spec.limits)
        self.runtime.bundle_of(container).mkdir(mode=0o711)
        host = HostPart(
            rootfs=str(root), uid_base=BASE, netns_path=self.netns, sysfs_path="", files={},
            volumes=(), hard_nofile=1024,
        )  # fmt: skip
        config = oci.build(spec, host, who)
        self.to_learn = self.runtime.write_config(container, config)
        return host, config

    async def create(self, *command: str, who: Identity = ROOT, **fields: Any) -> Container:
        spec = container_spec(command=command, **{"limits": LIMITS, **fields})
        container = self.next_id()
        host, _ = await self.prepare(container, spec, who)
        log = self.home / f"{container}.log"
        running = await self.runtime.create(container, log, spec)
        self.runtime.learn_filter(container, self.to_learn)
        self.cgroups.enter(container, running.pid)
        bundle = self.runtime.bundle_of(container)
        return Container(container, spec, host, bundle, log, running)

    async def run(self, *command: str, **options: Any) -> Container:
        """Run a container to its end."""
        container = await self.create(*command, **options)
        await self.runtime.start(container.id)
        await until(lambda: container.code() is not None)
        return container

    async def begin(self, *command: str, **options: Any) -> Container:
        """Run a container until its command has begun."""
        container = await self.create(*command, **options)
        await self.runtime.start(container.id)
        await until(lambda: self.runtime.has_begun(container.running.pid))
        return container


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    with one_host.network_namespace() as path:
        yield path


@pytest.fixture
async def here(netns: str) -> AsyncIterator[OneHost]:
    machine.mount_controllers()  # crun refuses a v1 tree that lacks some
    with one_host.cgroup_parent() as parent, one_host.directory() as home:
        (home / "state" / "containers").mkdir(parents=True)
        for name in ("crun", "bundles"):
            (home / name).mkdir(mode=0o711)
        made = OneHost(
            home,
            Runtime(home / "crun", home / "bundles"),
            Snapshots(home / "state", home / "run"),
            detect(parent),
            netns,
            [one_host.busybox_layer(home / "layer")],
        )
        try:
            yield made
        finally:
            for container in made.made:
                await made.runtime.delete(container)
                await made.runtime.kill_strays(container)
                await made.snapshots.unmount(container)
            made.snapshots.close()


# -- created, begun, ended


async def test_a_created_container_waits(here: OneHost) -> None:
    container = await here.create("echo", "hello")
    assert container.is_alive()
    assert container.is_watched()
    assert not here.runtime.has_begun(container.running.pid)
    assert container.code() is None
    assert container.log.read_text() == ""


async def test_a_started_container_has_begun(here: OneHost) -> None:
    container = await here.create("sleep", "60")
    await here.runtime.start(container.id)
    await until(lambda: here.runtime.has_begun(container.running.pid))
    program = Path(f"/proc/{container.running.pid}/exe").readlink().name
    assert (program, container.code()) == ("busybox", None)


async def test_a_container_that_has_ended_has_begun(here: OneHost) -> None:
    container = await here.run("true")
    await until(lambda: not container.is_alive())
    assert here.runtime.has_begun(container.running.pid)


async def test_what_it_prints_is_logged_by_stream(here: OneHost) -> None:
    container = await here.run("sh", "-c", "echo out; echo err >&2")
    lines = [line.split(" ", 3)[1:] for line in container.log.read_text().splitlines()]
    assert sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"]]


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)]
)
async def test_the_exit_code_is_kept(here: OneHost, script: str, code: int) -> None:
    # The shell is not the first process: that one is deaf to its own kills.
    container = await here.run("sh", "-c", f"sh -c '{script}'; exit $?")
    assert container.code() == code


async def test_a_killed_container_has_the_signals_code(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    os.kill(container.running.pid, signal.SIGKILL)
    await until(lambda: container.code() is not None)
    assert container.code() == 137


async def test_the_time_of_the_end_is_kept(here: OneHost) -> None:
    before_ns = time.time_ns()
    container = await here.run("true")
    ended = exit_code(container.bundle, container.id)
    assert ended is not None
    assert before_ns - 10**8 <= ended[1] <= time.time_ns()


async def test_the_monitor_goes_with_its_container(here: OneHost) -> None:
    container = await here.run("true")
    await until(lambda: not container.is_watched())


async def test_a_container_starts_once(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    with pytest.raises(ProgramFailedError, match=r"crun .*start .*exit code 1"):
        await here.runtime.start(container.id)
    assert container.is_alive()


async def test_what_does_not_exist_is_not_started(here: OneHost) -> None:
    with pytest.raises(ProgramFailedError, match="No such file or directory"):
        await here.runtime.start(here.next_id())


async def test_containers_begin_side_by_side(here: OneHost) -> None:
    containers = await asyncio.gather(*(here.run("sh", "-c", f"exit {n}") for n in range(6)))
    assert [container.code() for container in containers] == list(range(6))


# -- what it is inside


async def test_root_inside_is_nobody_outside(here: OneHost) -> None:
    container = await here.begin("sh", "-c", "id -u; id -g; sleep 60")
    assert container.status("Uid").split() == [str(BASE)] * 4
    await until(lambda: container.printed() == ["0", "0"])


async def test_a_user_of_the_image(here: OneHost) -> None:
    container = await here.run("id", who=ANN)
    assert container.printed()[0].startswith("uid=1000(ann) gid=1000 groups=10")


async def test_files_are_the_containers_own(here: OneHost) -> None:
    script = "stat -c '%u %g %a' / /bin/busybox; touch /new && stat -c %u /new"
    container = await here.run("sh", "-c", script)
    assert container.printed() == ["0 0 755", "0 0 755", "0"]


async def test_the_filter_of_system_calls_is_on_also_when_it_was_learnt(here: OneHost) -> None:
    for _ in range(2):
        container = await here.begin("sleep", "60")
        assert container.status("Seccomp") == "2"
    assert len(here.runtime._filters) == 1
    assert "run.oci.seccomp_bpf_data" in (container.bundle / "config.json").read_text()


async def test_a_learnt_filter_refuses_the_same_calls(here: OneHost) -> None:
    said = []
    for _ in range(2):
        container = await here.run("busybox", "unshare", "-U", "true")
        said.append((container.code(), container.printed()))
    assert said[0] == said[1]
    assert said[0][0] != 0
    assert "not permitted" in said[0][1][-1]


async def test_its_processes_are_in_its_group(here: OneHost) -> None:
    container = await here.begin("sh", "-c", "sleep 60 & sleep 60 & wait")
    await until(lambda: len(here.cgroups.pids(container.id)) == 3)
    assert container.running.pid in here.cgroups.pids(container.id)
    assert container.running.monitor_pid not in here.cgroups.pids(container.id)


async def test_a_container_without_memory_is_killed(here: OneHost) -> None:
    script = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"
    container = await here.run("sh", "-c", script, limits=limits(memory_bytes=16 << 20))
    assert container.code() == 137
    assert here.cgroups.was_oom_killed(container.id)


async def test_its_network_is_the_one_it_was_given(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    own = os.stat(f"/proc/{container.running.pid}/ns/net").st_ino  # noqa: PTH116
    assert own == os.stat(here.netns).st_ino  # noqa: PTH116


async def test_a_terminal_is_one(here: OneHost) -> None:
    container = await here.run("sh", "-c", "test -t 1 && echo yes", is_tty=True)
    assert container.printed() == ["yes\r"] or container.printed() == ["yes"]


async def test_crun_runs_from_a_sealed_copy(here: OneHost) -> None:
    here.runtime = replace(here.runtime, crun=sealed_copy(Path("/usr/bin/crun")))
    container = await here.create("sleep", "60")
    assert not here.runtime.has_begun(container.running.pid)
    await here.runtime.start(container.id)
    await until(lambda: here.runtime.has_begun(container.running.pid))
    assert (await here.runtime.version()).startswith("crun 1.")


# -- commands that cannot be run


NOT_RUNNABLE = [
    ("nope", 'exec: "nope": executable file not found in $PATH: unknown'),
    ("/bin/nope", 'exec: "/bin/nope": no such file or directory: unknown'),
    ("/etc/passwd", 'exec: "/etc/passwd": permission denied: unknown'),
    ("/etc", 'exec: "/etc": permission denied: unknown'),
    ("/etc/passwd/x", 'exec: "/etc/passwd/x": '),
]


@pytest.mark.parametrize(("command", "words"), NOT_RUNNABLE)
async def test_a_command_that_cannot_run_is_told_in_dockers_words(
    here: OneHost, command: str, words: str
) -> None:
    with pytest.raises(CommandNotRunnableError) as caught:
        await here.create(command)
    assert caught.value.message.startswith(
        "failed to create task for container: failed to create shim task: OCI runtime create failed"
    )
    assert words in caught.value.message


async def test_a_command_that_could_not_run_leaves_nothing(here: OneHost) -> None:
    with pytest.raises(CommandNotRunnableError):
        await here.create("nope")
    container = here.made[-1]
    await here.runtime.delete(container)
    assert here.runtime.known() == set()
    await until(lambda: not conmon._strays(container))
    assert here.cgroups.pids(container) == set()


async def test_a_fault_of_ours_is_not_the_commands(here: OneHost) -> None:
    spec = container_spec(command=("true",), limits=LIMITS)
    container = here.next_id()
    _, config = await here.prepare(container, spec)
    config["root"]["path"] = str(here.home / "missing")
    here.runtime.write_config(container, config)
    with pytest.raises(InternalError, match=r"OCI runtime create failed: .*missing"):
        await here.runtime.create(container, here.home / "log", spec)


# -- deletion


async def test_a_deleted_container_leaves_nothing(here: OneHost) -> None:
    container = await here.begin("sh", "-c", "sleep 60 & sleep 61 & wait")
    await until(lambda: len(here.cgroups.pids(container.id)) == 3)
    await here.runtime.delete(container.id)
    assert not container.is_watched()  # it would write the exit code into the bundle
    await until(lambda: not here.cgroups.pids(container.id))
    assert not container.is_alive()
    assert not container.bundle.exists()
    assert not here.runtime.knows(container.id)
    assert here.runtime.known() == set()
    here.cgroups.remove(container.id)


@pytest.mark.parametrize("state", ["created", "running", "exited"])
async def test_a_container_is_deleted_in_any_state(here: OneHost, state: str) -> None:
    step = {"created": here.create, "running": here.begin, "exited": here.run}[state]
    container = await step("sh", "-c", "sleep 0.05")
    await here.runtime.delete(container.id)
    assert not container.is_watched()
    assert here.runtime.known() == set()
    await until(lambda: not container.is_alive())


async def test_deleting_again_is_nothing(here: OneHost) -> None:
    container = await here.run("true")
    await here.runtime.delete(container.id)
    await here.runtime.delete(container.id)
    await here.runtime.delete(here.next_id())


async def test_deleting_one_leaves_the_other(here: OneHost) -> None:
    first, second = await here.begin("sleep", "60"), await here.begin("sleep", "60")
    await here.runtime.delete(first.id)
    assert second.is_alive()
    assert here.runtime.known() == {second.id}


async def test_a_deleted_container_can_be_made_anew(here: OneHost) -> None:
    container = await here.run("true")
    await here.runtime.delete(container.id)
    await here.prepare(container.id, container.spec)
    again = await here.runtime.create(container.id, container.log, container.spec)
    assert again.pid != container.running.pid


async def test_a_container_whose_monitor_was_killed_is_deleted(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    os.kill(container.running.monitor_pid, signal.SIGKILL)
    await until(lambda: not container.is_watched())
    await here.runtime.delete(container.id)
    await until(lambda: not container.is_alive())
    assert here.runtime.known() == set()


async def test_a_monitor_that_hangs_does_not_keep_its_bundle(
    here: OneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conmon, "_MONITOR_LIMIT_S", 0.05)
    container = await here.begin("sleep", "60")
    os.kill(container.running.monitor_pid, signal.SIGSTOP)
    await here.runtime.delete(container.id)
    assert not container.is_watched()
    assert here.runtime.known() == set()


async def test_strays_of_a_container_are_killed_and_no_others(here: OneHost) -> None:
    one, other = await here.create("sleep", "60"), await here.create("sleep", "60")
    await here.runtime.kill_strays(one.id)
    assert not one.is_watched()
    assert other.is_watched()


# -- execs


def an_exec(container: Container, *argv: str, **fields: Any) -> Exec:
    exec_id = ExecId(secrets.token_hex(32))
    return Exec(CreateExec(exec=exec_id, container=container.id, argv=argv, **fields))


async def executed(here: OneHost, container: Container, *argv: str, **fields: Any) -> Exec:
    """Run an exec to its end."""
    one = an_exec(container, *argv, **fields)
    spec = container.spec.model_copy(update={"command": argv})
    document = oci.process(spec, container.host, ROOT)
    files = here.cgroups.enter_files(container.id)
    async with asyncio.timeout(15):
        with contextlib.suppress(CommandNotRunnableError):
            await execs.run(here.runtime, one, document, files, here.home, None)
    return one


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("true",), 0), (("sh", "-c", "exit 3"), 3), (("sh", "-c", "kill -9 $$"), 137)],
)
async def test_an_exec_ends_with_its_commands_code(
    here: OneHost, argv: tuple[str, ...], code: int
) -> None:
    container = await here.begin("sleep", "60")
    one = await executed(here, container, *argv)
    assert (one.exit_code, one.ended.is_set()) == (code, True)


async def test_an_exec_that_cannot_run_has_a_shells_code_and_leaves_no_files(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    before = {path.name for path in here.home.iterdir()}
    commands = ("nope", "/bin/nope", "/etc/passwd", "/etc")
    codes = [(await executed(here, container, command)).exit_code for command in commands]
    assert codes == [127, 127, 126, 126]
    assert {path.name for path in here.home.iterdir()} == before


async def test_an_exec_sees_what_the_container_sees(here: OneHost) -> None:
    container = await here.begin("sh", "-c", "echo mine > /tmp/file; sleep 60")
    await until((Path(container.host.rootfs) / "tmp" / "file").exists)
    one = await executed(here, container, "sh", "-c", 'test "$(cat /tmp/file)" = mine')
    assert one.exit_code == 0


def process_of_exec(here: OneHost, container: Container) -> int | None:
    """A process in the container's group that runs its program and is not the container's first."""
    for pid in here.cgroups.pids(container.id) - {container.running.pid}:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink().name == "busybox":
                return pid
    return None


async def test_an_exec_counts_for_the_containers_limits(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(executed(here, container, "sleep", "60"))
        await until(lambda: process_of_exec(here, container))
        os.kill(process_of_exec(here, container) or 0, signal.SIGKILL)
    assert running.result().exit_code == 137


async def test_an_exec_ends_with_its_container(here: OneHost) -> None:
    container = await here.begin("sleep", "60")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(executed(here, container, "sleep", "60"))
        await until(lambda: process_of_exec(here, container))
        os.kill(container.running.pid, signal.SIGKILL)
    assert running.result().exit_code == 137
