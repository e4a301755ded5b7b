"""Root file systems: overlayfs with the image's layers idmapped to the container's ids.

Lower layers are stored with container ids and idmapped per container; the upper directory belongs
to the base id and is not idmapped: that would make overlayfs mount read-only without a word.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labfleet_proto.containers import HostBind
from labfleet_proto.errors import InternalError, InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters import kernel
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER

_UPPER, _WORK = "upper", "work"
_SHM = "shm"
_OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"


class Snapshots:
    """Writable snapshots below `<state>/containers/<id>`, mounted below `<run>/mounts/<id>`."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._state = state_dir / "containers"
        self._mounts = run_dir / "mounts"
        self._mounts.mkdir(parents=True, exist_ok=True)
        self._mounts.chmod(0o711)
        # Each thread has a working directory of its own, so that 127 layers fit in mount's one page.
        self._threads = ThreadPoolExecutor(
            max_workers=4,
            thread_name_prefix="mount",
            initializer=kernel.unshare,
            initargs=(kernel.CLONE_FS,),
        )
        self._userns: dict[int, int] = {}

    def userns(self, base: int) -> int:
        """Descriptor of a user namespace that maps a container's ids; kept for the next time."""
        if base not in self._userns:
            self._userns[base] = kernel.make_user_namespace(base, IDS_PER_CONTAINER)
        return self._userns[base]

    def root_of(self, container: ContainerId) -> Path:
        """Where the container's root file system is mounted, if it is."""
        return self._mounts / container / "root"

    def upper_of(self, container: ContainerId) -> Path:
        """Where the container's changes lie on the disk, if it has ever been prepared."""
        return self._state / container / _UPPER

    async def prepare(self, container: ContainerId, layers: Sequence[Path], base: int) -> Path:
        """Mount the container's root file system and return where. Again is nothing.

        Raises InternalError naming the mount that failed.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._prepare, container, layers, base)

    def _prepare(self, container: ContainerId, layers: Sequence[Path], base: int) -> Path:
        root = self.root_of(container)
        if os.path.ismount(root):
            return root
        home = self._mounts / container
        try:
            lower = home / "lower"
            lower.mkdir(parents=True, exist_ok=True)
            home.chmod(0o711)
            root.mkdir(exist_ok=True)
            self._writable(container, layers, base)
            for number, layer in enumerate(layers):
                self._mount_layer(layer, lower / str(number), base)
            self._mount_overlay(container, lower, len(layers))
        except OSError as exc:
            self._unmount(container)
            raise InternalError(f"cannot mount the files of {container[:12]}: {exc}") from exc
        return root

    def _writable(self, container: ContainerId, layers: Sequence[Path], base: int) -> None:
        state = self._state / container
        state.mkdir(mode=0o711, exist_ok=True)
        mode = layers[-1].stat().st_mode & 0o7777 if layers else 0o755
        for name in (_UPPER, _WORK):
            path = state / name
            if not path.is_dir():
                aside = path.with_suffix(".new")  # with its owner, or not there at all
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                os.chown(aside, base, base)
                aside.chmod(mode)
                aside.rename(path)

    def _mount_layer(
        self, layer: Path, target: Path, base: int, *, may_lack_ids: bool = False
    ) -> None:
        if layer.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        if os.path.ismount(target):
            return
        tree = self._with_ids(layer, base) if may_lack_ids else self._clone(layer, base)
        try:
            kernel.attach_mount(tree, target)
        finally:
            os.close(tree)

    def _mount_overlay(self, container: ContainerId, lower: Path, count: int) -> None:
        state = self._state / container
        os.chdir(lower)
        if count == 0:
            (lower / "empty").mkdir(exist_ok=True)
        lowers = ":".join(str(number) for number in reversed(range(count))) or "empty"
        data = f"lowerdir={lowers},upperdir={state / _UPPER},workdir={state / _WORK},{_OPTIONS}"
        kernel.mount("overlay", self.root_of(container), "overlay", 0, data)
        os.chdir("/")

    async def unmount(self, container: ContainerId) -> None:
        """Unmount what `prepare` and `attach_volume` mounted; again is nothing."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._unmount, container)

    def _unmount(self, container: ContainerId) -> None:
        home = self._mounts / container
        for path in reversed(kernel.mounted_below(home)):
            kernel.unmount(path)
        shutil.rmtree(home, ignore_errors=True)

    async def discard(self, container: ContainerId) -> None:
        """Unmount, and delete what the container wrote; again is nothing."""
        await self.unmount(container)
        for name in (_UPPER, _WORK):
            path = self._state / container / name
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def attach_volume(
        self, container: ContainerId, number: int, data: Path, base: int, subpath: str = ""
    ) -> Path:
        """Mount a volume's files, or one of them or a directory, with the container's ids.

        Returns the source to bind. Raises InternalError, InvalidRequestError (no such path).
        """
        target = self._mounts / container / f"volume{number}"

        def attach() -> Path:
            target.parent.mkdir(parents=True, exist_ok=True)
            if subpath:
                with kernel.path_beneath(data, subpath) as there:
                    self._mount_layer(there, target, base, may_lack_ids=True)
            else:
                self._mount_layer(data, target, base, may_lack_ids=True)
            return target

        try:
            return await asyncio.to_thread(attach)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise InvalidRequestError(f"cannot access path {subpath}: {exc.strerror}") from exc
        except OSError as exc:
            if subpath and exc.errno == errno.EXDEV:
                raise InvalidRequestError(
                    f"path concatenation escapes the base directory, subpath: {subpath}"
                ) from exc
            raise InternalError(f"cannot mount volume {data}: {exc}") from exc

    async def attach_bind(
        self, container: ContainerId, number: int, bind: HostBind, base: int
    ) -> Path:
        """Mount a path of the host with the container's ids: its root is the host's there.

        Returns the source to bind. Raises InvalidRequestError (no such path), InternalError.
        """
        target = self._mounts / container / f"bind{number}"

        def attach() -> Path:
            source = Path(bind.source)
            if bind.is_made and not source.exists():
                source.mkdir(parents=True)
            _require_passing(bind)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                source.stat()
                target.touch()
            if not os.path.ismount(target):
                tree = self._with_ids(source, base)
                try:
                    kernel.attach_mount(tree, target)
                finally:
                    os.close(tree)
            return target

        try:
            return await asyncio.to_thread(attach)
        except FileNotFoundError as exc:
            raise InvalidRequestError(
                'invalid mount config for type "bind": bind source path does not exist: '
                f"{bind.source}"
            ) from exc
        except OSError as exc:
            raise InternalError(f"cannot mount {bind.source}: {exc}") from exc

    async def share_memory(self, container: ContainerId, base: int, size: int) -> Path:
        """Mount shared memory that other containers can have, too. Raises InternalError."""
        target = self._mounts / container / _SHM

        def make() -> Path:
            target.mkdir(parents=True, exist_ok=True)
            if not os.path.ismount(target):
                options = f"mode=1777,size={size},uid={base},gid={base}"
                kernel.mount("shm", target, "tmpfs", kernel.MS_SAFE, options)
            return target

        try:
            return await asyncio.to_thread(make)
        except OSError as exc:
            raise InternalError(f"cannot mount shared memory: {exc}") from exc

    async def join_memory(self, container: ContainerId, other: ContainerId) -> Path:
        """Mount another container's shared memory. Raises InternalError in docker's words."""
        source, target = (self._mounts / each / _SHM for each in (other, container))

        def join() -> Path:
            target.mkdir(parents=True, exist_ok=True)
            if not os.path.ismount(source):
                raise InternalError(
                    f"can't join IPC of container {other}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            if not os.path.ismount(target):
                tree = kernel.clone_mount(source)
                try:
                    kernel.attach_mount(tree, target)
                finally:
                    os.close(tree)
            return target

        return await asyncio.to_thread(join)

    def _clone(self, source: Path, base: int) -> int:
        """A mount with a container's ids; those of who has the host's are as they are stored."""
        return (
            kernel.idmapped_clone(source, self.userns(base)) if base else kernel.clone_mount(source)
        )

    def _with_ids(self, source: Path, base: int) -> int:
        try:
            return self._clone(source, base)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            return kernel.clone_mount(source)  # a file system that cannot: owned by nobody

    def holds(self, container: ContainerId) -> bool:
        """Whether a container has mounts."""
        return (self._mounts / container).exists()

    def holders(self) -> set[str]:
        """Containers with mounts."""
        return {path.name for path in self._mounts.iterdir()}

    def close(self) -> None:
        """Let go of threads and descriptors; mounts stay."""
        self._threads.shutdown(wait=False)
        for fd in self._userns.values():
            os.close(fd)
        self._userns.clear()


def _require_passing(bind: HostBind) -> None:
    """Raise InternalError in docker's words for a mount through which none can pass."""
    way = bind.propagation.removeprefix("r")
    if way == "private" or not Path(bind.source).exists():
        return
    point, is_shared, is_slave = kernel.mount_of(Path(bind.source))
    if way == "shared" and not is_shared:
        raise InternalError(
            f"path {bind.source} is mounted on {point} but it is not a shared mount"
        )
    if way == "slave" and not (is_shared or is_slave):
        raise InternalError(
            f"path {bind.source} is mounted on {point} but it is not a shared or slave mount"
        )
