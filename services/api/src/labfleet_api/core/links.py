"""Legacy links (`--link`): a name by DNS, and what docker adds to the environment."""

from collections.abc import Iterable

from labfleet_api.core.attachments import parse_link
from labfleet_proto.containers import ContainerRecord

_NOT_PASSED_ON = ("PATH", "HOME")


def environment(own: str, linked: Iterable[tuple[str, ContainerRecord]]) -> tuple[str, ...]:
    """Entries for each link and the container that it names: its name, and its own environment.

    Docker's `_PORT` entries are not there: an address may change while the container runs.
    """
    found = []
    for text, record in linked:
        alias = parse_link(text)[1]
        prefix = alias.upper().replace("-", "_").replace(".", "_")
        found.append(f"{prefix}_NAME=/{own}/{alias}")
        for entry in record.spec.env:
            name, sign, value = entry.partition("=")
            if sign and name not in _NOT_PASSED_ON:
                found.append(f"{prefix}_ENV_{name}={value}")
    return tuple(found)


def shown(own: str, links: Iterable[str]) -> list[str]:
    """Links as inspect shows them: `/target:/own/alias`."""
    return [f"/{name}:/{own}/{alias}" for name, alias in map(parse_link, links)]
