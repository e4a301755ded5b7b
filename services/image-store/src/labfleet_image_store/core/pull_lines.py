"""Docker's stream of JSON lines while an image is pulled (moby's `streamformatter`)."""

from collections.abc import Mapping
from typing import Any

Line = Mapping[str, Any]
_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB")


def pulling(repository: str, label: str) -> Line:
    """The first line of a tag or digest."""
    return {"status": f"Pulling from {repository}", "id": label}


def layer(status: str, digest: str) -> Line:
    """A step of a layer."""
    return {"status": status, "progressDetail": {}, "id": digest[7:19]}


def downloading(digest: str, current: int, total: int) -> Line:
    """How far a layer has come."""
    return {
        "status": "Downloading",
        "progressDetail": {"current": current, "total": total},
        "progress": bar(current, total),
        "id": digest[7:19],
    }


def bar(current: int, total: int) -> str:
    """Docker's bar."""
    if total <= 0:
        return human(current)
    share = min(current * _BAR // total, _BAR)
    head = ">" if share < _BAR else ""
    drawn = ("=" * share + head).ljust(_BAR)
    return f"[{drawn}] {human(current):>8}/{human(total)}"


def human(size: int) -> str:
    """A size with four digits, in units of a thousand, as docker's go-units has it."""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.4g}{_UNITS[unit]}"


def digest(text: str) -> Line:
    """What a tag points to."""
    return {"status": f"Digest: {text}"}


def status(shown: str, *, is_new: bool) -> Line:
    """The last line."""
    word = "Downloaded newer image for" if is_new else "Image is up to date for"
    return {"status": f"Status: {word} {shown}"}


def warning(text: str) -> Line:
    """A word to the user that is no error."""
    return {"status": f"WARNING: {text}"}
