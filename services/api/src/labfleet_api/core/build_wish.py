"""The query of `POST /build` as a wish to a host."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labfleet_proto.containers import Limits
from labfleet_proto.errors import ForbiddenError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.ids import HostId, TenantId

_MEMORY = 2 << 30
_LEAST_MEMORY = 6 << 20
_CPU_MILLIS = 2000
_PIDS = 1024
_SHM = 64 << 20
_NAMED_MODES = ("", "default", "bridge")
_OS = ("linux",)
_MACHINES = ("amd64", "x86_64")


@dataclass(frozen=True)
class BuildWish:
    """What is asked, but for networks and the id."""

    dockerfile: str
    names: tuple[str, ...]
    build_args: dict[str, str]
    labels: dict[str, str]
    target: str
    extra_hosts: tuple[str, ...]
    cache_from: tuple[str, ...]
    network: str | None
    """Name of the network; empty for the tenant's default one, None for none."""
    limits: Limits


def wish_of(query: Mapping[str, str], names: Sequence[str], hosts: Sequence[str]) -> BuildWish:
    """Read the query; `names` and `hosts` are all of `t` and `extrahosts`.

    Raises InvalidRequestError, ForbiddenError, NotImplementedYetError.
    """
    if query.get("remote"):
        raise NotImplementedYetError(
            "labfleet: remote: a context is sent, not fetched by the fleet"
        )
    if query.get("version", "1") not in ("", "1"):
        raise NotImplementedYetError(
            "labfleet: version: builds are those of the classic builder (1)"
        )
    if query.get("squash", "").lower() in ("1", "true"):
        raise InvalidRequestError("squash is only supported with experimental mode")
    _check_platform(query.get("platform", ""))
    if query.get("cgroupparent"):
        raise ForbiddenError("cgroupparent: the host chooses it")
    return BuildWish(
        dockerfile=_relative(query.get("dockerfile") or "Dockerfile"),
        names=tuple(name for name in names if name),
        build_args=_map("buildargs", query.get("buildargs", "")),
        labels=_map("labels", query.get("labels", "")),
        target=query.get("target", ""),
        extra_hosts=_hosts(hosts),
        cache_from=_texts("cachefrom", query.get("cachefrom", "")),
        network=_network(query.get("networkmode", "")),
        limits=_limits(query),
    )


def _relative(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise InvalidRequestError(f"Cannot locate specified Dockerfile: {path}")
    return "/".join(parts)


def _map(name: str, text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"{name}: invalid JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{name}: must be a JSON object")
    return {str(key): str(value) for key, value in found.items() if value is not None}


def _texts(name: str, text: str) -> tuple[str, ...]:
    if not text:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequestError(f"{name}: invalid JSON: {exc}") from exc
    if found is None:
        return ()
    if not isinstance(found, list):
        raise InvalidRequestError(f"{name}: must be a JSON array")
    return tuple(str(each) for each in found)


def _hosts(values: Iterable[str]) -> tuple[str, ...]:
    found = [each.strip() for value in values for each in value.split(",") if each.strip()]
    for each in found:
        name, sign, address = each.partition(":")
        if not (name and sign and address):
            raise InvalidRequestError(f"invalid add-host: {each!r}: it is name:address")
        if address == "host-gateway":
            raise ForbiddenError("extrahosts: host-gateway: containers do not reach their host")
    return tuple(found)


def _network(mode: str) -> str | None:
    if mode == "none":
        return None
    if mode == "host" or mode.startswith(("container:", "ns:")):
        raise ForbiddenError(f"networkmode: {mode}: namespaces are never shared")
    return "" if mode in _NAMED_MODES else mode


def _check_platform(text: str) -> None:
    if not text:
        return
    system, _, machine = text.lower().partition("/")
    if system not in _OS and system not in _MACHINES:
        raise InvalidRequestError(
            f'invalid platform: "{text}": unknown operating system or architecture: invalid argument'
        )
    if machine and machine.partition("/")[0] not in _MACHINES:
        raise InvalidRequestError(f"invalid platform: {text}: the hosts are linux/amd64")


def _limits(query: Mapping[str, str]) -> Limits:
    memory = _number(query, "memory") or _MEMORY
    if memory < _LEAST_MEMORY:
        raise InvalidRequestError("Minimum memory limit allowed is 6MB")
    quota, period = _number(query, "cpuquota"), _number(query, "cpuperiod") or 100_000
    return Limits(
        memory_bytes=min(memory, _MEMORY),
        cpu_millis=min(max(quota * 1000 // period, 10), _CPU_MILLIS) if quota > 0 else _CPU_MILLIS,
        pids=_PIDS,
        cpu_shares=_number(query, "cpushares") or None,
        cpuset_cpus=query.get("cpusetcpus") or None,
        shm_bytes=_number(query, "shmsize") or _SHM,
    )


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    try:
        return max(int(text), 0)
    except ValueError as exc:
        raise InvalidRequestError(f"{name}: {text!r} is not a number") from exc


def order_of_hosts(tenant: TenantId, hosts: Iterable[HostId]) -> list[HostId]:
    """Hosts in the order in which a tenant's builds go to them (rendezvous hashing).

    The first one has the tenant's cache; another one's loss changes nothing.
    """
    return sorted(hosts, key=lambda host: hashlib.sha256(f"{tenant} {host}".encode()).digest())
