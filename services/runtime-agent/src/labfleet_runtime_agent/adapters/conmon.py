"""Containers run by crun under a conmon each.

conmon holds the container's stdio, writes its log and its exit code, and lets it outlive any
restart of the agent. Facts seen with conmon 2.1.6 and crun 1.8: conmon leaves its parent as soon as
`crun create` is done and reports the init's pid, or the runtime's error, on `_OCI_SYNCPIPE`; the
attach socket lies in the bundle with `--full-attach`; a peer's half-close closes the container's
stdin unless `--leave-stdin-open`; its packets begin with one byte, 2 stdout or 3 stderr.
"""

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from labfleet_chassis import process
from labfleet_proto.containers import ContainerSpec
from labfleet_proto.errors import CommandNotRunnableError, InternalError, LabfleetError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters.ledger import RunningProcess
from labfleet_runtime_agent.adapters.processes import ProcessHandle, started_ticks

_LIMIT_S = 30.0
_MONITOR_LIMIT_S = 5.0
"""How long a monitor may take to write the exit code once its container is gone."""
_COMPILED = "run.oci.seccomp_bpf_data"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_COMMAND_FAILED = re.compile(
    r"executable file .* not found|open executable: |exec container process"
    r"|the path `.*` (exists but it is not executable|is not a regular file)"  # crun 1.15 and later
)
"""Words of crun for a command that it cannot run; other missing files are faults of ours."""


class _Sync(BaseModel):
    data: int
    message: str = ""


@dataclass(frozen=True)
class Runtime:
    """How to call crun on this host."""

    root: Path
    """crun's own state, below the run directory."""
    bundles: Path
    """Bundles, below the run directory: made anew for each start, gone with a reboot."""
    crun: str = "/usr/bin/crun"
    conmon: str = "/usr/bin/conmon"
    _filters: dict[str, str] = field(default_factory=dict)
    """Compiled seccomp filters by their document, as crun takes them."""

    def crun_argv(self, *words: str) -> list[str]:
        """Command line of one crun call."""
        return [self.crun, "--root", str(self.root), "--cgroup-manager", "disabled", *words]

    def bundle_of(self, container: ContainerId) -> Path:
        """Directory of a container's bundle, present or not."""
        return self.bundles / container

    def write_config(self, container: ContainerId, config: dict[str, Any]) -> str:
        """Write `config.json` into the bundle; return its filter if it is to be learnt, else nothing.

        crun compiles the seccomp document at each start, unless it is handed the filter that an
        earlier start with the same document has left (ADR 0009). Then the rules are left out: a
        runtime that does not know the annotation would allow no call at all.
        """
        linux = config["linux"]
        wanted = linux.get("seccomp")
        document = json.dumps(wanted) if wanted else ""
        compiled = self._filters.get(document)
        if compiled is not None:
            refusal = {**wanted, "defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}
            linux = {**linux, "seccomp": refusal}
            config = {**config, "linux": linux, "annotations": {_COMPILED: compiled}}
        (self.bundle_of(container) / "config.json").write_text(json.dumps(config))
        return document if compiled is None else ""

    def learn_filter(self, container: ContainerId, document: str) -> None:
        """Keep the filter that crun has compiled of a document for a container just created."""
        if document:
            with contextlib.suppress(FileNotFoundError):  # of another version of crun
                filter_bytes = (self.root / container / "seccomp.bpf").read_bytes()
                self._filters[document] = base64.b64encode(filter_bytes).decode()

    async def create(
        self, container: ContainerId, log: Path, spec: ContainerSpec
    ) -> RunningProcess:
        """Create the container of its bundle under a new monitor that writes `log`.

        Its init waits for `start`.

        Raises:
            CommandNotRunnableError: the command does not exist or may not be executed.
            InternalError: crun or conmon failed; the message is theirs.
        """
        bundle = self.bundle_of(container)
        read_end, write_end = os.pipe()
        try:
            argv = self._conmon_argv(container, bundle, log, spec)
            child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(write_end,),
                env={"_OCI_SYNCPIPE": str(write_end), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )
            os.close(write_end)
            write_end = -1
            async with asyncio.timeout(_LIMIT_S):
                answer = await _read_line(read_end)
                await process.ended(child)
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        pid = _pid_of(answer, spec)
        monitor = int((bundle / "monitor.pid").read_text())
        return RunningProcess(
            pid=pid,
            started_ticks=started_ticks(pid),
            monitor_pid=monitor,
            monitor_started_ticks=started_ticks(monitor),
        )

    def _conmon_argv(
        self, container: ContainerId, bundle: Path, log: Path, spec: ContainerSpec
    ) -> list[str]:
        argv = [
            self.conmon,
            "--api-version",
            "1",
            "-c",
            container,
            "-u",
            container,
            "-n",
            container[:12],
        ]
        argv += ["-r", self.crun, "-b", str(bundle), "-p", str(bundle / "init.pid")]
        argv += [
            "--conmon-pidfile",
            str(bundle / "monitor.pid"),
            "--exit-dir",
            str(bundle),
        ]
        if spec.log.driver == "none":
            argv += ["-l", "none"]
        else:
            # The agent begins new files; the monitor throws its file away where no agent runs for long.
            most = spec.log.file_bytes + spec.limits.log_bytes
            argv += ["-l", f"k8s-file:{log}", "--log-size-max", str(most)]
        argv += ["--full-attach", "--log-level", "error"]
        if spec.is_tty:
            argv.append("-t")
        if spec.open_stdin:
            argv.append("-i")
            if not spec.stdin_once or spec.is_tty:  # who leaves a terminal may come back
                argv.append("--leave-stdin-open")
        for word in self.crun_argv()[1:]:
            argv += ["--runtime-arg", word]
        return argv

    async def start(self, container: ContainerId) -> None:
        """Let the created container's command run. Raises ProgramFailedError.

        `crun start` takes the pipe `exec.fifo` from the container's state and writes one byte into
        it; that is done here without a program (ADR 0006), and by crun where there is no such pipe.
        """
        fifo = self.root / container / "exec.fifo"
        try:
            pipe = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no such pipe, or nobody waits at it: crun says why
            await process.run(self.crun_argv("start", container), timeout_s=_LIMIT_S)
            return
        try:
            os.write(pipe, b"\0")
            fifo.unlink()
        finally:
            os.close(pipe)

    def has_begun(self, pid: int) -> bool:
        """Whether a container's first process runs its command: until then it is crun, or a copy of it."""
        try:
            program = Path(f"/proc/{pid}/exe")
            is_crun = program.readlink().name.startswith("memfd:") or program.samefile(self.crun)
        except OSError:
            return True  # it has ended
        return not is_crun

    async def delete(self, container: ContainerId) -> None:
        """Kill it if it runs and forget it, bundle and all; absent is success."""
        if (self.root / container).exists():
            await self._delete(container)
        await self._end_monitor(container)
        await asyncio.to_thread(shutil.rmtree, self.bundle_of(container), ignore_errors=True)

    async def _delete(self, container: ContainerId) -> None:
        done = await process.run(
            self.crun_argv("delete", "--force", container), timeout_s=_LIMIT_S, check=False
        )
        if done.exit_code != 0 and (self.root / container).exists():
            raise process.ProgramFailedError(done)

    async def _end_monitor(self, container: ContainerId) -> None:
        """Wait until it has written the exit code: a late one would bring the bundle back."""
        try:
            pid = int((self.bundle_of(container) / "monitor.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        if not _is_ours(pid, container):
            return
        handle = ProcessHandle(pid, started_ticks(pid))
        try:
            async with asyncio.timeout(_MONITOR_LIMIT_S):
                await handle.ended()
        except TimeoutError:
            handle.send(signal.SIGKILL)
            async with asyncio.timeout(_LIMIT_S):
                await handle.ended()
        finally:
            handle.close()

    async def kill_strays(self, container: ContainerId) -> None:
        """Kill what an earlier life of the agent left half-way: a monitor, or crun making a container.

        Found by the container's id on their command lines, as nothing was written down yet.
        """
        for handle in await asyncio.to_thread(_strays, container):
            handle.send(signal.SIGKILL)
            async with asyncio.timeout(_LIMIT_S):
                await handle.ended()
            handle.close()

    def knows(self, container: ContainerId) -> bool:
        """Whether there is state of crun, or a bundle, of a container."""
        return (self.root / container).exists() or self.bundle_of(container).exists()

    def known(self) -> set[str]:
        """Containers of which there is state of crun, or a bundle; crun 1.15 and later keep a `.cache` there, too."""
        entries = [entry.name for place in (self.root, self.bundles) for entry in place.iterdir()]
        return {name for name in entries if not name.startswith(".")}

    async def version(self) -> str:
        """Such as `crun 1.8.1`."""
        done = await process.run([self.crun, "--version"], timeout_s=_LIMIT_S)
        words = done.stdout.decode().splitlines()[0].split()
        return f"{words[0]} {words[-1]}"


def sealed_copy(program: Path) -> str:
    """Return a path to a sealed copy of a program in memory, for the life of this process.

    crun copies itself into such a file before it enters a container, so that a container cannot
    overwrite it (CVE-2019-5736); from a sealed copy it needs not do so. Raises OSError.
    """
    handle = os.memfd_create(program.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(handle, program.read_bytes())
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
    return f"/proc/{os.getpid()}/fd/{handle}"


_OURS = ("conmon", "crun", "memfd:")
"""How the programs of monitors and of crun, or of its copy in memory, are called."""


def _is_ours(pid: int, container: ContainerId) -> bool:
    """Whether a process is conmon or crun for this container."""
    entry = Path(f"/proc/{pid}")
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        return container.encode() in words and (entry / "exe").readlink().name.startswith(_OURS)
    except OSError:  # it has ended
        return False


def _strays(container: ContainerId) -> list[ProcessHandle]:
    """Processes of conmon and crun for this container."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [ProcessHandle(pid, started_ticks(pid)) for pid in pids if _is_ours(pid, container)]


def exit_code(bundle: Path, container: ContainerId) -> tuple[int, int] | None:
    """Exit code and time (ns since the epoch) that the monitor wrote; None if it has not."""
    file = bundle / container
    try:
        text = file.read_text().strip()
        return (int(text), file.stat().st_mtime_ns) if text else None
    except (FileNotFoundError, ValueError):
        return None


async def _read_line(fd: int) -> bytes:
    """Read the first line of the pipe: the grandchild keeps the other end open."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    got = b""
    try:
        while not got.endswith(b"\n"):
            await ready.wait()
            ready.clear()
            with contextlib.suppress(BlockingIOError):
                more = os.read(fd, 65_536)
                if not more:
                    break
                got += more
    finally:
        loop.remove_reader(fd)
    return got


def _pid_of(answer: bytes, spec: ContainerSpec) -> int:
    try:
        sync = _Sync.model_validate(json.loads(answer))
    except (ValueError, ValidationError) as exc:
        raise InternalError(f"conmon ended without a word: {answer!r}") from exc
    if sync.data > 0:
        return sync.data
    raise failure(sync.message.strip(), spec.argv[0])


def failure(said: str, command: str) -> LabfleetError:
    """Turn the runtime's message into docker's words."""
    if "cgroups in hybrid mode" in said:
        return InternalError(f"crun: {said}: mount the missing v1 controllers (labfleet doctor)")
    if not _COMMAND_FAILED.search(said) and f"cannot open `{command}`" not in said:
        return InternalError(f"OCI runtime create failed: {said}")
    reason = "no such file or directory"
    if re.search(r"denied|not permitted", said, re.IGNORECASE):
        reason = "permission denied"
    elif "/" not in command:
        reason = "executable file not found in $PATH"
    return CommandNotRunnableError(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f'unable to start container process: exec: "{command}": {reason}: unknown'
    )
