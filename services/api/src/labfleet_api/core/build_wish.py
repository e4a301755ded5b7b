"""The query of `POST /build` as a wish to a host."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from labfleet_api.core.host_config import Ulimit as UlimitBody
from labfleet_api.core.ulimits import ulimits
from labfleet_proto.containers import Limits, Ulimit
from labfleet_proto.errors import ForbiddenError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId, TenantId
from labfleet_proto.resources import Resources, fits

_MEMORY = 2 << 30
_LEAST_MEMORY = 6 << 20
_CPU_MILLIS = 2000
_PIDS = 1024
_SHM = 64 << 20
_NAMED_MODES = ("", "default", "bridge", "none")
_ULIMITS = TypeAdapter(list[UlimitBody])
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
    network: str
    """Name of the network; empty for the tenant's default one."""
    is_offline: bool
    """RUN has no network."""
    limits: Limits
    ulimits: tuple[Ulimit, ...] = ()
    remote: str = ""
    """Where the context is to be fetched from; empty: it is sent."""


def wish_of(query: Mapping[str, str], names: Sequence[str], hosts: Sequence[str]) -> BuildWish:
    """Read the query; `names` and `hosts` are all of `t` and `extrahosts`.

    Raises InvalidRequestError, ForbiddenError, NotImplementedYetError.
    """
    if query.get("remote") == "client-session":
        raise NotImplementedYetError(
            "labfleet: remote: a context is sent or fetched, there are no sessions"
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
    isolation = query.get("isolation", "").lower()
    if isolation not in ("", "default"):
        raise InvalidRequestError(f'Unsupported isolation: "{isolation}"')
    mode = query.get("networkmode", "")
    return BuildWish(
        dockerfile=_relative(query.get("dockerfile") or "Dockerfile"),
        names=tuple(name for name in names if name),
        build_args=_map("buildargs", query.get("buildargs", "")),
        labels=_map("labels", query.get("labels", "")),
        target=query.get("target", ""),
        extra_hosts=_hosts(hosts),
        cache_from=_texts("cachefrom", query.get("cachefrom", "")),
        network=_network(mode),
        is_offline=mode == "none",
        limits=_limits(query),
        ulimits=_ulimits(query.get("ulimits", "")),
        remote=query.get("remote", ""),
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
    if found is None:  # as Go's clients write an empty map
        return {}
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


def _network(mode: str) -> str:
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


def _ulimits(text: str) -> tuple[Ulimit, ...]:
    if text in ("", "null"):
        return ()
    try:
        return ulimits(_ULIMITS.validate_json(text))
    except ValidationError as exc:
        raise InvalidRequestError(f"ulimits: invalid JSON: {text[:200]}") from exc


def builder_of(
    tenant: TenantId, hosts: Mapping[HostId, HostRecord], limits: Limits
) -> HostRecord | None:
    """The host of a build: the one with the tenant's cache, if it has room, or the next that has.

    Where none has room it is the first, which waits for some. None if there is no host.
    """
    order = order_of_hosts(tenant, hosts)
    wanted = Resources(
        memory_bytes=limits.memory_bytes,
        cpu_millis=limits.cpu_millis,
        pids=limits.pids,
        containers=1,
    )
    found = next((name for name in order if fits(wanted, hosts[name].free)), None)
    return hosts[found or order[0]] if order else None


def order_of_hosts(tenant: TenantId, hosts: Iterable[HostId]) -> list[HostId]:
    """Hosts in the order in which a tenant's builds go to them (rendezvous hashing).

    The first one has the tenant's cache; another one's loss changes nothing.
    """
    return sorted(hosts, key=lambda host: hashlib.sha256(f"{tenant} {host}".encode()).digest())
