"""What an image's config says of its containers."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True)
class ImageHealth:
    """The HEALTHCHECK of an image."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


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
    health: ImageHealth | None = None
    shell: tuple[str, ...] = ()


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
        health=_health(said.get("Healthcheck")),
        shell=_texts(said.get("Shell")),
    )


def _health(value: JsonValue) -> ImageHealth | None:
    """Docker's own field of the config; what is no number there counts as not said."""
    if not isinstance(value, dict):
        return None

    def number(name: str) -> int:
        found = value.get(name)
        return found if isinstance(found, int) and found > 0 else 0

    return ImageHealth(
        test=_texts(value.get("Test")),
        interval_ns=number("Interval"),
        timeout_ns=number("Timeout"),
        start_period_ns=number("StartPeriod"),
        start_interval_ns=number("StartInterval"),
        retries=number("Retries"),
    )


def _texts(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, list | dict):
        return tuple(str(each) for each in value)
    return ()
