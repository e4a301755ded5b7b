"""Containers that are together in namespaces: `--pid container:x` and `--ipc container:x`."""

from collections.abc import Mapping
from typing import Literal

from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.powers import MODES
from labfleet_api.core.refusals import JOINABLE
from labfleet_proto.containers import ContainerRecord, ContainerSpec
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_proto.powers import HostPowers, Namespace

CONTAINER_MODE = "container:"
Kind = Literal["pid", "ipc"]


def wanted(host: HostConfigBody) -> dict[Kind, str]:
    """The containers that a request names, by kind of namespace. Raises InvalidRequestError."""
    found: dict[Kind, str] = {}
    for field, kind in JOINABLE.items():
        mode = str(getattr(host, field))
        if mode.startswith(CONTAINER_MODE):
            found[kind] = mode.removeprefix(CONTAINER_MODE)
            if not found[kind]:
                raise InvalidRequestError(f"HostConfig.{field}: {mode}: no container is named")
    return found


def shared_memory(host: HostConfigBody) -> Literal["private", "shareable", "none"]:
    """What becomes of /dev/shm."""
    if host.IpcMode == "shareable":
        return "shareable"
    return "none" if host.IpcMode == "none" else "private"


def joined(
    spec: ContainerSpec, others: Mapping[Kind, ContainerRecord], *, is_operator: bool
) -> ContainerSpec:
    """A container in the namespaces of others, whose user ids it then has.

    Raises ForbiddenError for who may not have the host's ids, InvalidRequestError for two ranges of ids.
    """
    joins: dict[Kind, ContainerId] = {kind: other.id for kind, other in others.items()}
    of_host: set[Namespace] = {
        kind for kind, other in others.items() if other.spec.shares_with_host(kind)
    }
    found = spec.model_copy(
        update={"joins": {kind: other for kind, other in joins.items() if kind not in of_host}}
    )
    if any(other.spec.shares_with_host("user") for other in others.values()):
        found = with_host(found, {"user", *of_host}, is_operator=is_operator)
    ranges = {other.spec.has_ids_of or other.id for other in others.values()}
    if len(ranges) > 1 and not found.shares_with_host("user"):
        raise InvalidRequestError(
            "HostConfig.PidMode, HostConfig.IpcMode: the two containers have user ids of their own, "
            "nobody can be in both"
        )
    return found


def with_host(spec: ContainerSpec, kinds: set[Namespace], *, is_operator: bool) -> ContainerSpec:
    """A container that is, with another one, in namespaces of its host. Raises ForbiddenError."""
    if not is_operator:
        fields = ", ".join(f"HostConfig.{field}" for field, kind in MODES if kind in kinds)
        raise ForbiddenError(
            f"{fields}: the other container has namespaces of its host, which are for operators"
        )
    old = spec.powers or HostPowers()
    return spec.model_copy(
        update={"powers": old.model_copy(update={"namespaces": old.namespaces | kinds})}
    )
