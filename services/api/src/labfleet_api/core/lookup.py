"""Finding a container by id, unique prefix of an id, or name, in docker's order."""

from collections.abc import Iterable

from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.networks import NetworkRecord


def find_container(text: str, records: Iterable[ContainerRecord]) -> ContainerRecord:
    """Return the record that `text` means: whole id first, then name, then prefix.

    Raises NotFoundError, InvalidRequestError (ambiguous prefix).
    """
    name = text.removeprefix("/")
    by_name: ContainerRecord | None = None
    by_prefix: list[ContainerRecord] = []
    for record in records:
        if record.id == text:
            return record
        if record.name == name:
            by_name = record
        elif text and record.id.startswith(text):
            by_prefix.append(record)
    if by_name is not None:
        return by_name
    if len(by_prefix) > 1:
        raise InvalidRequestError(f"Multiple IDs found with provided prefix: {text}")
    if not by_prefix:
        raise NotFoundError(f"No such container: {text}")
    return by_prefix[0]


def find_network(text: str, records: Iterable[NetworkRecord]) -> NetworkRecord:
    """Return the network that `text` means: whole id first, then name, then prefix.

    Raises NotFoundError, InvalidRequestError (ambiguous prefix).
    """
    by_name: NetworkRecord | None = None
    by_prefix: list[NetworkRecord] = []
    for record in records:
        if record.id == text:
            return record
        if record.name == text:
            by_name = record
        elif text and record.id.startswith(text):
            by_prefix.append(record)
    if by_name is not None:
        return by_name
    if len(by_prefix) > 1:
        raise InvalidRequestError(f"network {text} is ambiguous ({len(by_prefix)} matches found)")
    if not by_prefix:
        raise NotFoundError(f"network {text} not found")
    return by_prefix[0]
