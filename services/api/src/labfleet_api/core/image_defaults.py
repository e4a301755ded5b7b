"""What an image's config says of its containers."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class ImageDefaults:
    """What an image's config says of its containers."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


def image_defaults(config: Mapping[str, JsonValue]) -> ImageDefaults:
    """Read the `config` object of an OCI image config."""
    inner = config.get("config")
    said: Mapping[str, JsonValue] = inner if isinstance(inner, dict) else {}
    labels = said.get("Labels")
    return ImageDefaults(
        env=_texts(said.get("Env")),
        entrypoint=_texts(said.get("Entrypoint")),
        command=_texts(said.get("Cmd")),
        working_dir=str(said.get("WorkingDir") or ""),
        user=str(said.get("User") or ""),
        labels=tuple((key, str(value)) for key, value in labels.items())
        if isinstance(labels, dict)
        else (),
        exposed_ports=_texts(said.get("ExposedPorts")),
        volumes=_texts(said.get("Volumes")),
        stop_signal=str(said.get("StopSignal") or ""),
    )


def _texts(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, list | dict):
        return tuple(str(each) for each in value)
    return ()
