"""The rules of docker's `--user`: `user`, `uid`, `user:group`, `uid:gid` and mixtures."""

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.spec import Identity

_GREATEST_ID = 65_535
"""A container has 65,536 ids."""
_MOST_DIGITS = 20


def resolve(user: str, passwd: str, group: str, group_add: tuple[str, ...] = ()) -> Identity:
    """Return the identity that `user` names.

    Args:
        user: As given; empty is root.
        passwd: Text of the image's /etc/passwd, may be empty.
        group: Text of the image's /etc/group, may be empty.
        group_add: Further groups by name or number.

    Raises:
        InvalidRequestError: an unknown name, or an id beyond the container's range.
    """
    name, _, group_name = user.partition(":")
    name = name or "0"
    row = _row(passwd, name, 7)
    if row is not None:
        uid, gid, login, home = int(row[2]), int(row[3]), row[0], row[5] or "/"
    elif _is_number(name):
        uid, gid, login, home = int(name), 0, "", "/root" if name == "0" else "/"
    else:
        raise InvalidRequestError(f"unable to find user {name}: no matching entries in passwd file")
    if group_name:
        gid = _group_id(group, group_name)
        groups: set[int] = set()
    else:
        groups = _groups_of(group, login) if login else set()
    groups |= {_group_id(group, extra) for extra in group_add}
    for number in (uid, gid, *groups):
        if number > _GREATEST_ID:
            raise InvalidRequestError(
                f"id {number} is beyond the container's {_GREATEST_ID + 1} ids"
            )
    return Identity(uid, gid, tuple(sorted(groups)), home)


def _is_number(text: str) -> bool:
    """Digits that `int` takes: `isdigit` alone also means superscripts, and `int` has a longest text."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _row(text: str, key: str, width: int) -> list[str] | None:
    """First row whose name or number is `key`."""
    rows = [line.split(":") for line in text.splitlines()]
    good = [row for row in rows if len(row) >= width and _is_number(row[2])]
    for row in good:
        if row[0] == key:
            return row if width < 7 or _is_number(row[3]) else None
    if _is_number(key):
        for row in good:
            if int(row[2]) == int(key):
                return row if width < 7 or _is_number(row[3]) else None
    return None


def _group_id(group: str, key: str) -> int:
    row = _row(group, key, 3)
    if row is not None:
        return int(row[2])
    if _is_number(key):
        return int(key)
    raise InvalidRequestError(f"unable to find group {key}: no matching entries in group file")


def _groups_of(group: str, login: str) -> set[int]:
    found = set()
    for line in group.splitlines():
        row = line.split(":")
        if len(row) >= 4 and _is_number(row[2]) and login in row[3].split(","):
            found.add(int(row[2]))
    return found
