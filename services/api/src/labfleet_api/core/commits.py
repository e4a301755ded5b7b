"""The config of an image that is made of a container."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from labfleet_api.core import config_views
from labfleet_api.core.body import Body
from labfleet_proto.containers import ContainerRecord, ContainerSpec

_OF_IMAGE = ("Healthcheck", "OnBuild", "Shell")
"""What a container has of its image."""


class CommitBody(Body):
    """Body of `POST /commit`: what the new image has instead of the container's own."""

    User: str = ""
    Env: list[str] | None = None
    Cmd: list[str] | None = None
    Entrypoint: list[str] | None = None
    ExposedPorts: dict[str, JsonValue] | None = None
    Volumes: dict[str, JsonValue] | None = None
    WorkingDir: str = ""
    Labels: dict[str, str] | None = None
    StopSignal: str = ""


def committed_config(
    spec: ContainerSpec, image: Mapping[str, JsonValue], body: CommitBody
) -> dict[str, Any]:
    """The `config` object: the body over the container over its image, as docker merges them."""
    inner = image.get("config")
    below: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
    named = {entry.partition("=")[0] for entry in body.Env or ()}
    env = [entry for entry in spec.env if entry.partition("=")[0] not in named]
    volumes: dict[str, Any] = {mount.target: {} for mount in spec.mounts if mount.is_anonymous}
    config: dict[str, Any] = {
        "User": body.User or spec.user,
        "ExposedPorts": {name: {} for name in spec.exposed_ports} | (body.ExposedPorts or {}),
        "Env": [*(body.Env or ()), *env],
        "Cmd": body.Cmd if body.Cmd is not None else list(spec.command),
        "Entrypoint": body.Entrypoint if body.Entrypoint is not None else list(spec.entrypoint),
        "Volumes": (below.get("Volumes") or {}) | volumes | (body.Volumes or {}),
        "WorkingDir": body.WorkingDir or spec.working_dir,
        "Labels": spec.labels | (body.Labels or {}),
        "StopSignal": body.StopSignal or below.get("StopSignal") or "",
    }
    config |= {key: below[key] for key in _OF_IMAGE if below.get(key)}
    return {key: value for key, value in config.items() if value}


def container_config(record: ContainerRecord) -> dict[str, Any]:
    """`container_config` of the image: how the container itself was configured."""
    return config_views.config(record)
