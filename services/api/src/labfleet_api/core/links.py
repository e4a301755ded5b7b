"""Legacy links (`--link`): a name by DNS, and what docker adds to the environment."""

from collections.abc import Iterable

from labfleet_api.core.attachments import parse_link
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import NotFoundError

_NOT_PASSED_ON = ("PATH", "HOME")


def environment(own: str, linked: Iterable[tuple[str, ContainerRecord]]) -> tuple[str, ...]:
    """Entries for each link and the container that it names: its name, and its own environment.

    Docker's `_PORT` entries are not there: an address may change while the container runs.
    """
    found = []
    for text, record in linked:
        alias = parse_link(text)[1]
        prefix = _prefix(alias)
        found.append(f"{prefix}_NAME=/{own}/{alias}")
        for entry in record.spec.env:
            name, sign, value = entry.partition("=")
            if sign and name not in _NOT_PASSED_ON:
                found.append(f"{prefix}_ENV_{name}={value}")
    return tuple(found)


def names_by_link(records: Iterable[ContainerRecord]) -> dict[str, list[str]]:
    """By a container's name, or the first 12 digits of its id: what others that link to it call it."""
    found: dict[str, list[str]] = {}
    for record in records:
        asked = record.spec.asked_host_config.get("Links")
        for text in asked if isinstance(asked, list) else ():
            name, alias = parse_link(str(text))
            found.setdefault(name, []).append(f"/{record.name}/{alias}")
    return found


def shown(own: str, links: Iterable[str]) -> list[str]:
    """Links as inspect shows them: `/target:/own/alias`."""
    return [f"/{name}:/{own}/{alias}" for name, alias in map(parse_link, links)]


def without_link(record: ContainerRecord, alias: str) -> ContainerRecord:
    """The record without a link; its environment follows at the next start. Raises NotFoundError."""
    spec = record.spec
    asked = spec.asked_host_config.get("Links")
    links = [str(each) for each in asked] if isinstance(asked, list) else []
    rest = [each for each in links if parse_link(each)[1] != alias]
    if len(rest) == len(links):
        raise NotFoundError(f"Cannot get parent /{record.name} for name /{record.name}/{alias}")
    prefix = _prefix(alias)
    networks = tuple(
        each.model_copy(
            update={"links": {k: v for k, v in each.links.items() if k != alias.lower()}}
        )
        for each in spec.networks
    )
    changed = {
        "networks": networks,
        "link_env": tuple(each for each in spec.link_env if not each.startswith(f"{prefix}_")),
        "asked_host_config": {**spec.asked_host_config, "Links": rest},
    }
    return record.model_copy(update={"spec": spec.model_copy(update=changed)})


def _prefix(alias: str) -> str:
    return alias.upper().replace("-", "_").replace(".", "_")
