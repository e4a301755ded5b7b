"""Routes about the fleet itself: ping, version, info, events."""

import json
import platform
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.core import filters, subnets
from labfleet_api.core.status import is_live, state_of
from labfleet_api.core.times import parse_time, rfc3339
from labfleet_api.core.views import DOCKER_ROOT
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import API_VERSION, LEAST_API_VERSION, answer
from labfleet_proto.errors import NotFoundError
from labfleet_proto.events import FleetEvent
from labfleet_proto.ids import OPERATORS
from labfleet_proto.images import LIST_IMAGES
from labfleet_proto.message import Nothing
from labfleet_proto.placement import takes_room

_DOCKER = "28.2.2"
_EVENT_FILTERS = frozenset(
    {"container", "event", "image", "label", "network", "type", "volume", "host", "scope"}
    | {"daemon", "config", "node", "plugin", "secret", "service"}
)
_PING = {
    "Api-Version": API_VERSION,
    "Builder-Version": "1",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


def router(fleet: Fleet) -> APIRouter:
    """Routes of the system."""
    routes = APIRouter()

    @routes.get("/_ping")
    async def ping() -> Response:
        return Response("OK", 200, _PING, "text/plain; charset=utf-8")

    @routes.head("/_ping")
    async def ping_head() -> Response:
        return Response(status_code=200, headers=_PING, media_type="text/plain; charset=utf-8")

    @routes.get("/version")
    async def show_version() -> Response:
        return answer(_version())

    @routes.get("/info")
    async def info() -> Response:
        images = await fleet.bus.call(LIST_IMAGES, Nothing(), tenant=fleet.tenant, subject="images")
        return answer(_info(fleet, len(images.images)))

    @routes.get("/plugins")
    async def plugins() -> Response:
        return answer([])

    @routes.get("/plugins/{name:path}/json")
    async def plugin(name: str) -> Response:
        raise NotFoundError(f'plugin "{name}" not found')

    @routes.get("/events")
    async def events(request: Request) -> Response:
        asked = request.query_params
        wanted = filters.parse_filters(asked.get("filters", ""), _EVENT_FILTERS)
        since_ns = parse_time(asked.get("since", ""), "since")
        tenant = fleet.memory.credentials.tenants.get(fleet.tenant)
        if since_ns and tenant is not None:  # not those of one that had the name before
            since_ns = max(since_ns, tenant.created_at_ns)
        until_ns = parse_time(asked.get("until", ""), "until")
        return StreamingResponse(
            _events(fleet, wanted, since_ns, until_ns), media_type="application/json"
        )

    return routes


async def _events(
    fleet: Fleet, wanted: filters.Filters, since_ns: int, until_ns: int
) -> AsyncIterator[bytes]:
    yield b""  # the head goes out at once: clients wait for it
    async with fleet.bus.events(
        fleet.tenant, since_ns or None, until_ns=until_ns or None
    ) as stream:
        async for event in stream:
            if _event_matches(event, wanted):
                yield json.dumps(_event(event)).encode() + b"\n"


def _event(event: FleetEvent) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
    if event.type == "container":
        shown |= {
            "status": event.action,
            "id": event.id,
            "from": event.attributes.get("image", ""),
        }
    return shown


def _event_matches(event: FleetEvent, wanted: filters.Filters) -> bool:
    name = event.attributes.get("name", "")
    for key, values in wanted.items():
        if key == "type":
            good = event.type in values
        elif key == "event":
            good = event.action.partition(":")[0] in values or event.action in values
        elif key == "label":
            good = filters.labels_match(values, event.attributes)
        elif key == "host":
            good = event.host in values or event.attributes.get("labfleet.host") in values
        elif key in ("container", "image", "network", "volume"):
            named = event.attributes.get("image", "") if key == "image" else name
            good = key in (event.type, "image") and any(
                value in (event.id, name, named) or event.id.startswith(value) for value in values
            )
        else:
            good = key == "scope"
        if not good:
            return False
    return True


def _engine_version() -> str:
    """The docker whose API this is, with our own version: clients choose by it what they may expect."""
    return f"{_DOCKER}+labfleet{version('labfleet')}"


def _version() -> dict[str, Any]:
    own = _engine_version()
    return {
        "Platform": {"Name": f"Labfleet {version('labfleet')}"},
        "Components": [
            {
                "Name": "Engine",
                "Version": own,
                "Details": {
                    "ApiVersion": API_VERSION,
                    "MinAPIVersion": LEAST_API_VERSION,
                    "GoVersion": f"none, Python {platform.python_version()}",
                    "GitCommit": "",
                    "BuildTime": "",
                    "Os": "linux",
                    "Arch": _arch(),
                    "KernelVersion": platform.release(),
                    "Experimental": "false",
                },
            }
        ],
        "Version": own,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": LEAST_API_VERSION,
        "GitCommit": "",
        "GoVersion": f"python{platform.python_version()}",
        "Os": "linux",
        "Arch": _arch(),
        "KernelVersion": platform.release(),
        "BuildTime": "",
    }


def _arch() -> str:
    """Go's name of the architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _info(fleet: Fleet, images: int) -> dict[str, Any]:
    hosts = sorted(fleet.memory.hosts.values(), key=lambda host: host.id)
    states = [state_of(record, fleet.seen(record)) for record in fleet.records()]
    is_operator = fleet.tenant == OPERATORS
    counted = fleet.memory.containers.values() if is_operator else fleet.records()
    rows = [["Hosts", str(len(hosts))]]
    for host in hosts:
        word = "lost" if fleet.is_lost(host.id) else "alive"
        own = [each for each in counted if each.assignment.host == host.id]
        noun = "container" if len(own) == 1 else "containers"
        row = f"{word}, {len(own)} {noun}"
        if is_operator:
            used = [
                each.spec.limits.memory_bytes for each in own if takes_room(each, fleet.seen(each))
            ]
            row += f", {sum(used) >> 20} of {host.capacity.memory_bytes >> 20} MiB promised"
        rows.append([f" {host.id}", row])
    first = hosts[0] if hosts else None
    runtime = first.runtime if first else ""
    return {
        "ID": fleet.settings.fleet,
        "Name": fleet.settings.fleet,
        "Containers": len(states),
        "ContainersRunning": states.count("running") + states.count("restarting"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": sum(not is_live(state) for state in states),
        "Images": images,
        "Driver": "overlay2",
        "DriverStatus": rows,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "overlay"],
            "Authorization": None,
            "Log": ["json-file"],
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "Debug": False,
        "OomKillDisable": False,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if first and "cgroup-v2" in first.features else "1",
        "NEventsListener": 0,
        "NFd": 0,
        "NGoroutines": 0,
        "BridgeNfIptables": True,
        "BridgeNfIp6tables": True,
        "GenericResources": None,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": runtime, "Expected": runtime},
        "InitCommit": {"ID": ""},
        "CDISpecDirs": None,
        "DefaultAddressPools": [{"Base": str(subnets.POOL), "Size": subnets.PREFIX}],
        "ProductLicense": "",
        "KernelVersion": first.kernel if first else platform.release(),
        "OperatingSystem": first.operating_system if first else "",
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": sum(host.cores for host in hosts),
        "MemTotal": sum(host.total_memory_bytes for host in hosts),
        "IndexServerAddress": fleet.settings.registry,
        "RegistryConfig": {
            "IndexConfigs": {
                fleet.settings.registry: {
                    "Name": fleet.settings.registry,
                    "Mirrors": [],
                    "Secure": False,
                    "Official": True,
                }
            },
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "Mirrors": None,
        },
        "DockerRootDir": DOCKER_ROOT,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [f"{key}={value}" for host in hosts for key, value in host.labels.items()],
        "ExperimentalBuild": False,
        "ServerVersion": _engine_version(),
        "Runtimes": {"crun": {"path": "crun"}},
        "DefaultRuntime": "crun",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "docker-init",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
        "SystemTime": rfc3339(fleet.clock.now_ns()),
        "Warnings": None,
    }
