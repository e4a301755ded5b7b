"""Hosts in the shape of docker's nodes."""

import re
from collections.abc import Iterable
from typing import Any

from labfleet_api.core.body import Body
from labfleet_api.core.filters import Filters
from labfleet_api.core.times import rfc3339
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.host_policies import Availability, HostPolicy, labels_of
from labfleet_proto.hosts import HostRecord

Json = dict[str, Any]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class NodeBody(Body):
    """What `docker node update` sends: a whole specification."""

    Name: str = ""
    Labels: dict[str, str] | None = None
    Role: str = "worker"
    Availability: str = "active"


def checked_policy(host: HostRecord, body: NodeBody, now_ns: int) -> HostPolicy:
    """What the operators want of the host from now on. Raises InvalidRequestError naming the field."""
    body.refuse_unserved()
    if body.Role.lower() not in ("", "worker"):
        raise InvalidRequestError(f"Role: {body.Role!r}: hosts of a fleet are workers")
    if body.Name and body.Name != host.id:
        raise InvalidRequestError(f"Name: a host keeps its name, {host.id}")
    try:
        availability = Availability(body.Availability.lower() or "active")
    except ValueError as exc:
        raise InvalidRequestError(
            f"Availability: {body.Availability!r} is none of active, pause, drain"
        ) from exc
    labels = body.Labels or {}
    for key in labels:
        if _LABEL.fullmatch(key) is None:
            raise InvalidRequestError(f"Labels: {key!r} is no name of a label")
    own = {key: value for key, value in labels.items() if host.labels.get(key) != value}
    return HostPolicy(host=host.id, availability=availability, labels=own, updated_at_ns=now_ns)


def node_view(
    host: HostRecord, policy: HostPolicy | None, index: int, version: str, *, is_lost: bool
) -> Json:
    """One host as `GET /nodes` shows it; `index` is what an update must bring back."""
    updated_ns = max(host.updated_at_ns, policy.updated_at_ns if policy else 0)
    availability = policy.availability if policy else Availability.ACTIVE
    if host.is_drained:
        availability = Availability.DRAIN
    return {
        "ID": host.id,
        "Version": {"Index": index},
        "CreatedAt": rfc3339(host.updated_at_ns),
        "UpdatedAt": rfc3339(updated_ns),
        "Spec": {
            "Name": host.id,
            "Labels": labels_of(host, policy),
            "Role": "worker",
            "Availability": availability.value,
        },
        "Description": {
            "Hostname": host.id,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {
                "NanoCPUs": host.cores * 1_000_000_000,
                "MemoryBytes": host.total_memory_bytes,
            },
            "Engine": {
                "EngineVersion": version,
                "Labels": host.labels,
                "Plugins": [
                    {"Type": "Network", "Name": "bridge"},
                    {"Type": "Network", "Name": "overlay"},
                    {"Type": "Volume", "Name": "local"},
                ],
            },
            "TLSInfo": {},
        },
        "Status": {
            "State": "down" if is_lost else "ready",
            "Message": "its sign of life has run out" if is_lost else "",
            "Addr": host.address,
        },
    }


def find_host(text: str, hosts: Iterable[HostRecord]) -> HostRecord:
    """Find by name or a unique prefix of one. Raises NotFoundError, InvalidRequestError."""
    every = list(hosts)
    exact = [host for host in every if host.id == text]
    found = exact or [host for host in every if text and host.id.startswith(text)]
    if not found:
        raise NotFoundError(f"node {text} not found")
    if len(found) > 1:
        raise InvalidRequestError(f"node {text} is ambiguous ({len(found)} matches found)")
    return found[0]


def matches(row: Json, wanted: Filters) -> bool:
    """Whether a row passes the filters `id name label node.label membership role`."""
    labels = row["Spec"]["Labels"]
    pairs = {f"{key}={value}" for key, value in labels.items()} | set(labels)
    for name, values in wanted.items():
        good = {
            "id": any(row["ID"].startswith(value) for value in values),
            "name": any(row["Description"]["Hostname"].startswith(value) for value in values),
            "label": all(value in pairs for value in values),
            "node.label": all(value in pairs for value in values),
            "membership": "accepted" in values,
            "role": "worker" in values,
        }
        if not good[name]:
            return False
    return True
