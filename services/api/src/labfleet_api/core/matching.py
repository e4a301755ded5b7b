"""The filters of `docker ps`: values of one filter are alternatives, but labels all hold."""

import re
from collections.abc import Callable, Mapping

from labfleet_api.core import filters
from labfleet_api.core.filters import Filters
from labfleet_api.core.status import STATES, health_word, state_of
from labfleet_proto.containers import ContainerRecord, ContainerSpec, Observation
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.images import familiar_repository

KNOWN = frozenset(
    {"id", "name", "label", "status", "ancestor", "network", "volume", "exited", "host"}
    | {"health", "before", "since", "publish", "expose", "is-task", "isolation"}
)
_VALUES = {
    "status": re.compile("|".join(STATES)),
    "health": re.compile("none|starting|healthy|unhealthy"),
    "exited": re.compile(r"-?\d{1,10}"),
    "is-task": re.compile("1|0|true|false|t|f", re.IGNORECASE),
}
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")


def check(wanted: Filters) -> None:
    """Raise InvalidRequestError, in docker's words, for a value that a filter does not have."""
    for name, pattern in _VALUES.items():
        for value in wanted.get(name, ()):
            if pattern.fullmatch(value) is None:
                raise InvalidRequestError(f"invalid filter '{name}={value}'")
    for name in ("publish", "expose"):
        for value in wanted.get(name, ()):
            _port_names(value)


def matches(
    record: ContainerRecord,
    seen: Observation | None,
    wanted: Filters,
    created_at_ns: Mapping[str, int],
) -> bool:
    """Whether a container passes every filter.

    `created_at_ns` has the times of the containers that `before` and `since` name.
    """
    spec = record.spec
    state = state_of(record, seen)
    code = seen.exit_code if seen is not None else None
    checks: dict[str, Callable[[str], bool]] = {
        "id": record.id.startswith,
        "name": lambda value: _name_matches(record.name, value),
        "status": lambda value: state == value,
        "ancestor": lambda value: _is_of_image(record, value),
        "network": lambda value: any(
            value in (each.network_name, each.network_id) for each in spec.networks
        ),
        "volume": lambda value: any(value in (each.volume, each.target) for each in spec.mounts),
        "exited": lambda value: state == "exited" and code == int(value),
        "host": lambda value: record.assignment.host == value,
        "health": lambda value: health_word(record, seen) == value,
        "publish": lambda value: bool(_port_names(value) & _published(spec)),
        "expose": lambda value: bool(_port_names(value) & set(spec.exposed_ports)),
        "is-task": lambda value: value.lower() in ("0", "false", "f"),
        "isolation": lambda _value: True,
        "before": lambda value: record.created_at_ns < created_at_ns[value],
        "since": lambda value: record.created_at_ns > created_at_ns[value],
    }
    for name, values in wanted.items():
        if name == "label":
            if not filters.labels_match(values, spec.labels):
                return False
        elif not any(checks[name](value) for value in values):
            return False
    return True


def _is_of_image(record: ContainerRecord, value: str) -> bool:
    image = record.image
    repository = familiar_repository(image.repository)
    names = (image.reference, image.image_id, repository, f"{repository}:latest")
    return value in names or image.image_id.removeprefix("sha256:").startswith(value)


def _published(spec: ContainerSpec) -> set[str]:
    return {f"{each.container_port}/{each.protocol}" for each in spec.ports}


def _port_names(value: str) -> set[str]:
    """`80`, `80/udp` or `8000-8080/tcp` as names of container ports. Raises InvalidRequestError."""
    found = _PORTS.fullmatch(value)
    first = int(found[1]) if found else 0
    last = int(found[2] or first) if found else 0
    if found is None or not 0 < first <= last <= 65_535:
        raise InvalidRequestError(f"invalid port specification: {value!r}")
    return {f"{port}/{found[3] or 'tcp'}" for port in range(first, last + 1)}


def _name_matches(name: str, pattern: str) -> bool:
    """Docker takes a regular expression; one that is malformed is taken literally."""
    try:
        return re.search(pattern, name) is not None or re.search(pattern, f"/{name}") is not None
    except re.error:
        return pattern in name
