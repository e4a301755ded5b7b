"""What became of a layer, in the words of `docs/archive-zoo.md`."""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.zoo.animals import CAGES, Animal

from labfleet_proto.errors import LabfleetError
from labfleet_runtime_agent.adapters.unpack_layer import unpack

_LONG = 28
_SHOWN = 5


def outcome(animal: Animal, root: Path) -> str:
    """Unpack it below an empty directory; return what is there, or the refusal's own words."""
    try:
        unpack(str(root), io.BytesIO(animal.make()))
    except LabfleetError as exc:
        return f"refused: {exc.message}"
    found = list(_tree(root))
    return (
        f"taken: {', '.join(found[:_SHOWN])}{' ...' if len(found) > _SHOWN else ''}"
        if found
        else "taken: nothing"
    )


def _tree(root: Path) -> Iterator[str]:
    if _is_opaque(root):
        yield "`/` opaque"
    seen: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        there = path.lstat()
        if not (stat.S_ISDIR(there.st_mode) and any(path.iterdir()) and not _is_opaque(path)):
            yield _told(root, path, there, seen)


def _told(root: Path, path: Path, there: os.stat_result, seen: dict[int, str]) -> str:
    name = _text(os.fsencode(path.relative_to(root)))
    twin = seen.setdefault(there.st_ino, name)
    kind = stat.S_IFMT(there.st_mode)
    if twin != name:
        return f"`{name}` = `{twin}`"
    if kind == stat.S_IFLNK:
        return f"`{name} -> {_text(os.fsencode(path.readlink()))}`"
    if kind == stat.S_IFDIR:
        return f"`{name}/` opaque" if _is_opaque(path) else f"`{name}/`{_marks(path, there)}"
    if kind == stat.S_IFCHR:
        return f"`{name}` {'whiteout' if there.st_rdev == 0 else 'DEVICE'}"
    if kind == stat.S_IFREG:
        return f"`{name}` {_content(path, there)}{_marks(path, there)}"
    return f"`{name}` {'pipe' if kind == stat.S_IFIFO else 'OTHER'}"


def _is_opaque(path: Path) -> bool:
    return (
        not path.is_symlink() and path.is_dir() and "trusted.overlay.opaque" in os.listxattr(path)
    )


def _content(path: Path, there: os.stat_result) -> str:
    text = path.read_bytes() if there.st_size <= _LONG else b""
    return f'"{text.decode(errors="replace")}"' if text else f"{there.st_size} bytes"


def _marks(path: Path, there: os.stat_result) -> str:
    """Owner, mode, time and attributes where they are not the usual ones."""
    marks = [*os.listxattr(path)]
    if there.st_uid:
        marks.append(f"owner {there.st_uid}")
    if stat.S_IMODE(there.st_mode) not in (0o644, 0o755):
        marks.append(f"mode {stat.S_IMODE(there.st_mode):o}")
    if there.st_mtime < 0 or there.st_mtime > 1 << 33:
        marks.append(f"time {there.st_mtime:g}")
    return f" ({', '.join(marks)})" if marks else ""


def _text(name: bytes) -> str:
    text = name.decode("utf-8", "backslashreplace")
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= _LONG else f"{text[:10]}... of {len(name)}"


def table(outcomes: dict[tuple[str, str], str]) -> str:
    """The tables of the page."""
    parts = []
    for cage, held in CAGES.items():
        rows = [f"| {name} | {outcomes[cage, name].replace('|', chr(92) + '|')} |" for name in held]
        parts.append("\n".join([f"## {cage}", "", "| layer | outcome |", "|---|---|", *rows, ""]))
    return "\n".join(parts)
