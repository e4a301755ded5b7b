"""A container's writable layer against its image's layers: what changed, as a list and as a layer's tar.

Read below the overlay, on the host: whiteouts, opaque directories and whole copies are told apart from
what is really different, as docker's diff does it. Nothing is followed and no name leaves its directory,
whatever the container does meanwhile.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.adapters.tree_reader import TreeReader
from labfleet_runtime_agent.core.changes import MADE_FOR_RUNNING, Change, Kind, is_different
from labfleet_runtime_agent.core.tar_paths import WHITEOUT

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_DEEPEST = 2000


@dataclass(frozen=True)
class _Entry:
    """A change, and where its file is while the walk stands there."""

    change: Change
    parent_fd: int = -1
    leaf: str = ""
    there: os.stat_result | None = None


@dataclass(frozen=True)
class _Old:
    """An entry of the image: its newest version, and the directories that make it up, top first."""

    there: os.stat_result
    directories: tuple[int, ...] = ()


@dataclass(frozen=True)
class WritableLayer:
    """Where a container's changes are."""

    upper: Path
    layers: Sequence[Path]
    """The image's layers, base first."""
    base: int
    """First id of the container."""

    def changes(self) -> Iterator[Change]:
        """Yield what changed, each directory before what is in it."""
        for entry in self._entries():
            yield entry.change

    def write_tar(self, output: IO[bytes]) -> None:
        """Write the changes as a layer's tar (OCI image-spec): ids as inside, whiteouts as `.wh.`."""
        tar = TreeReader(output, self.base)
        for entry in self._entries():
            name = entry.change.path.lstrip("/")
            if entry.there is None:
                directory, slash, leaf = name.rpartition("/")
                tar.add_marker(f"{directory}{slash}{WHITEOUT}{leaf}")
            else:
                with contextlib.suppress(FileNotFoundError):  # gone since
                    tar.add_entry(entry.parent_fd, entry.leaf, name, entry.there)
        tar.close()

    def _entries(self) -> Iterator[_Entry]:
        if not self.upper.is_dir():
            return  # it never ran
        with contextlib.ExitStack() as stack:
            tops = []
            for path in (self.upper, *reversed(self.layers)):
                tops.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, tops[-1])
            yield from self._walk(tops[0], tuple(tops[1:]), "", 0)

    def _walk(self, upper: int, lowers: tuple[int, ...], path: str, depth: int) -> Iterator[_Entry]:
        if depth > _DEEPEST:
            raise InvalidRequestError(f"{path[:80]}...: deeper than {_DEEPEST} directories")
        names = set(os.listdir(upper))
        hidden = set()
        if lowers and _is_opaque(upper):
            hidden = _names(lowers) - names
        for leaf in sorted(names | hidden):
            below = f"{path}/{leaf}"
            with _looked_up(lowers, leaf) as old:
                if leaf in hidden:
                    if old is not None:
                        yield _Entry(Change(below, Kind.DELETED))
                    continue
                try:
                    there = os.stat(leaf, dir_fd=upper, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield from self._compared(
                    _Entry(Change(below, Kind.ADDED), upper, leaf, there), old, depth
                )

    def _compared(self, new: _Entry, old: _Old | None, depth: int) -> Iterator[_Entry]:
        path, there = new.change.path, new.there
        if there is None:
            return
        if _is_whiteout(there):
            if old is not None:
                yield _Entry(Change(path, Kind.DELETED))
            return
        is_said = old is None or is_different(old.there, there, self.base)
        if old is None and path in MADE_FOR_RUNNING:
            is_said = False
        kind = Kind.ADDED if old is None and is_said else Kind.MODIFIED
        said = _Entry(Change(path, kind), new.parent_fd, new.leaf, there)
        if is_said:
            yield said
        if not stat.S_ISDIR(there.st_mode):
            return
        try:
            fd = os.open(new.leaf, _DIRECTORY, dir_fd=new.parent_fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            for entry in self._walk(fd, old.directories if old else (), path, depth + 1):
                if not is_said:  # a directory with changes is itself modified
                    is_said = True
                    yield said
                yield entry
        finally:
            os.close(fd)


@contextlib.contextmanager
def _looked_up(lowers: tuple[int, ...], leaf: str) -> Iterator[_Old | None]:
    """Find a name in the merged layers, top first; its directories are open meanwhile."""
    first: os.stat_result | None = None
    opened: list[int] = []
    try:
        for lower in lowers:
            try:
                there = os.stat(leaf, dir_fd=lower, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if _is_whiteout(there) or (opened and not stat.S_ISDIR(there.st_mode)):
                break
            first = first or there
            if not stat.S_ISDIR(there.st_mode):
                break
            opened.append(os.open(leaf, _DIRECTORY, dir_fd=lower))
            if _is_opaque(opened[-1]):
                break
        yield None if first is None else _Old(first, tuple(opened))
    finally:
        for fd in opened:
            os.close(fd)


def _names(lowers: tuple[int, ...]) -> set[str]:
    """All names of the merged layers' directory, whiteouts too."""
    return {name for lower in lowers for name in os.listdir(lower)}  # noqa: PTH208


def _is_whiteout(there: os.stat_result) -> bool:
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:
        return False


def size_of(top: Path) -> int:
    """Bytes of all files in a directory, each counted once however many names it has."""
    seen: set[tuple[int, int]] = set()
    total = 0
    if not top.is_dir():
        return 0
    for _, _, names, directory in os.fwalk(top):
        for name in names:
            try:
                there = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if there.st_nlink == 1 or (there.st_dev, there.st_ino) not in seen:
                seen.add((there.st_dev, there.st_ino))
                total += there.st_size
    return total
