"""Finding a container or network by id, name, or unique prefix of an id, in docker's order."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.networks import NetworkRecord


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=_Named)


def find_container(text: str, records: Iterable[ContainerRecord]) -> ContainerRecord:
    """Return the record that `text` means: whole id first, then name, then prefix.

    Raises NotFoundError, InvalidRequestError (ambiguous prefix).
    """
    found = _matches(text, text.removeprefix("/"), records)
    if len(found) > 1:
        raise InvalidRequestError(f"Multiple IDs found with provided prefix: {text}")
    if not found:
        raise NotFoundError(f"No such container: {text}")
    return found[0]


def find_network(text: str, records: Iterable[NetworkRecord]) -> NetworkRecord:
    """Return the network that `text` means: whole id first, then name, then prefix.

    Raises NotFoundError, InvalidRequestError (ambiguous prefix).
    """
    found = _matches(text, text, records)
    if len(found) > 1:
        raise InvalidRequestError(f"network {text} is ambiguous ({len(found)} matches found)")
    if not found:
        raise NotFoundError(f"network {text} not found")
    return found[0]


def _matches(text: str, name: str, records: Iterable[R]) -> list[R]:
    """The one with that id or name, else all whose id begins so; the empty text means nothing."""
    by_name: R | None = None
    by_prefix: list[R] = []
    for record in records:
        if record.id == text:
            return [record]
        if record.name == name:
            by_name = record
        elif text and record.id.startswith(text):
            by_prefix.append(record)
    return [by_name] if by_name is not None else by_prefix
