"""`--change` of `docker commit` and `docker import`: Dockerfile instructions that alter an image's config."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from labfleet_api.core.expansion import expanded, variables
from labfleet_proto.errors import InvalidRequestError

_KNOWN = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
_TEXTS = {"USER": "User", "STOPSIGNAL": "StopSignal"}
_EXPANDED = frozenset({"ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"})
_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?")
_OPTION = re.compile(r"--([a-z-]+)=(\S+)\s*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|ns)")
_UNIT_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "ns": 1,
}
_HEALTH = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
MOST_PORTS = 65_535


def apply(config: Mapping[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    """Return a copy of an image's `config` object with the instructions applied in order.

    Raises InvalidRequestError in docker's words.
    """
    changed = dict(config)
    for text in lines:
        for line in text.replace("\\\n", " ").splitlines():
            if line.strip():
                _apply(changed, line.strip())
    return changed


def _apply(config: dict[str, Any], line: str) -> None:
    word, _, rest = line.partition(" ")
    name, rest = word.upper(), rest.strip()
    if name not in _KNOWN:
        raise InvalidRequestError(f"{word} is not a valid change command")
    if not rest:
        raise InvalidRequestError(f"{name} requires at least one argument")
    if name in _EXPANDED:
        rest = expanded(rest, variables(config.get("Env") or ()))
    key, value = _changed(config, name, rest)
    config[key] = value


def _changed(  # noqa: PLR0911 - a table of instructions
    config: Mapping[str, Any], name: str, rest: str
) -> tuple[str, Any]:
    """Which field an instruction sets, and to what."""
    if name in _TEXTS:
        return _TEXTS[name], rest
    match name:
        case "CMD" | "ENTRYPOINT":
            return name.title(), _command(rest, config)
        case "ENV":
            return "Env", _with_env(list(config.get("Env") or ()), _pairs(name, rest))
        case "LABEL":
            return "Labels", {**(config.get("Labels") or {}), **dict(_pairs(name, rest))}
        case "EXPOSE":
            ports = [port for each in rest.split() for port in _ports(each)]
            return "ExposedPorts", (config.get("ExposedPorts") or {}) | _set(ports)
        case "VOLUME":
            paths = _array(rest) or rest.split()
            return "Volumes", (config.get("Volumes") or {}) | _set(paths)
        case "WORKDIR":
            return "WorkingDir", _joined(str(config.get("WorkingDir") or "/"), rest)
        case "ONBUILD":
            return "OnBuild", [*(config.get("OnBuild") or ()), _trigger(rest)]
        case _:
            return "Healthcheck", _healthcheck(rest)


def _set(names: Sequence[str]) -> dict[str, Any]:
    """Names as Go's JSON of a set."""
    return {name: {} for name in names}


def _array(text: str) -> list[str] | None:
    """A JSON array of texts; None if it is none."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_good = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found if is_good else None


def _command(text: str, config: Mapping[str, Any]) -> list[str]:
    words = _array(text)
    return words if words is not None else [*(config.get("Shell") or _SHELL), text]


def _pairs(name: str, text: str) -> list[tuple[str, str]]:
    """`a=b c="d e"`, or the old form `a b c`."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidRequestError(f"{name} must have two arguments")
        return [(first[0], first[1])]
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise InvalidRequestError(f"{name}: {exc}") from exc
    pairs = []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise InvalidRequestError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not key:
            raise InvalidRequestError(f"{name} names can not be blank")
        pairs.append((key, value))
    return pairs


def _with_env(there: list[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    for key, value in pairs:
        entry = f"{key}={value}"
        for number, old in enumerate(there):
            if old.partition("=")[0] == key:
                there[number] = entry
                break
        else:
            there.append(entry)
    return there


def _ports(text: str) -> list[str]:
    found = _PORT.fullmatch(text)
    first = int(found[1]) if found else 0
    last = int(found[2] or first) if found else 0
    if found is None or not 0 < first <= last <= MOST_PORTS:
        raise InvalidRequestError(f"invalid containerPort: {text}")
    return [f"{port}/{found[3] or 'tcp'}" for port in range(first, last + 1)]


def _joined(base: str, path: str) -> str:
    parts: list[str] = []
    whole = path if path.startswith("/") else f"{base}/{path}"
    for part in whole.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _trigger(text: str) -> str:
    word = text.split(maxsplit=1)[0].upper()
    if word == "ONBUILD":
        raise InvalidRequestError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise InvalidRequestError(f"{word} isn't allowed as an ONBUILD trigger")
    return text


def _healthcheck(text: str) -> dict[str, Any]:
    check: dict[str, Any] = {}
    while found := _OPTION.match(text):
        key, value = found[1], found[2]
        if key == "retries":
            if not value.isdigit():
                raise InvalidRequestError(f"invalid value for --retries: {value}")
            check["Retries"] = int(value)
        elif key in _HEALTH:
            check[_HEALTH[key]] = _duration_ns(value)
        else:
            raise InvalidRequestError(f"Unknown flag: {key}")
        text = text[found.end() :]
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE":
        return {"Test": ["NONE"]}
    if word.upper() != "CMD" or not rest.strip():
        raise InvalidRequestError(f'Unknown type "{word}" in HEALTHCHECK (try CMD)')
    words = _array(rest.strip())
    check["Test"] = ["CMD", *words] if words is not None else ["CMD-SHELL", rest.strip()]
    return check


def _duration_ns(text: str) -> int:
    """A duration in Go's form. Raises InvalidRequestError."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequestError(f'time: invalid duration "{text}"')
    return int(sum(float(number) * _UNIT_NS[unit] for number, unit in parts))
