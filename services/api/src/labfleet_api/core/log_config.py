"""`HostConfig.LogConfig`: drivers and their options, and what stands before a line that is asked for with details."""

import re
from collections.abc import Mapping
from urllib.parse import quote_plus

from labfleet_api.core.host_config import LogConfigBody
from labfleet_proto.containers import ContainerRecord, LogSettings
from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DEFAULTS = {"json-file": (32 << 20, 2), "local": (20 << 20, 5), "none": (1 << 20, 1)}
"""Bytes and number of files; docker's for `local`, for `json-file` it has no bound."""
_COMMON = {"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
_ROTATION = {"max-size", "max-file", "compress"}
_ELSEWHERE = ("awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog")
_MOST_BYTES = 1 << 30
_MOST_FILES = 100


def settings(body: LogConfigBody | None) -> LogSettings:
    """Translate; raises InvalidRequestError with docker's words, NotImplementedYetError."""
    driver = (body.Type if body else "") or "json-file"
    options = dict((body.Config if body else None) or {})
    if driver in _ELSEWHERE:
        raise NotImplementedYetError(
            f"labfleet: HostConfig.LogConfig.Type {driver} is not there yet"
        )
    if driver not in _DEFAULTS:
        raise InvalidRequestError(f"logger: no log driver named '{driver}' is registered")
    if driver == "none":
        return LogSettings(driver=driver, options=options)
    for name in options:
        if name not in _COMMON | _ROTATION:
            raise InvalidRequestError(f"unknown log opt '{name}' for {driver} log driver")
    file_bytes, files = _DEFAULTS[driver]
    if "max-size" in options:
        file_bytes = _size(options["max-size"])
        files = files if driver == "local" else 1  # docker's default
    if "max-file" in options:
        files = _count(options["max-file"])
    _check_compress(options.get("compress", ""), files)
    files = min(files, _MOST_FILES)
    return LogSettings(
        driver=driver,
        options=options,
        file_bytes=min(file_bytes, _MOST_BYTES // files),
        files=files,
    )


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * (1 << _UNITS[found[2].lower()])) if found else 0
    if size <= 0:
        raise InvalidRequestError(f"max-size must be a positive number, not {text!r}")
    return size


def _count(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise InvalidRequestError(f"max-file: {text!r} is not a number")
    if int(text) < 1:
        raise InvalidRequestError("max-file cannot be less than 1")
    return int(text)


def _check_compress(text: str, files: int) -> None:
    if text.lower() not in ("", "0", "1", "t", "f", "true", "false"):
        raise InvalidRequestError(f"compress: {text!r} is neither true nor false")
    if text.lower() in ("1", "t", "true") and files < 2:
        raise InvalidRequestError("compress cannot be true when max-file is less than 2 or unset")


def details(record: ContainerRecord) -> str:
    """What docker shows before each line: the labels and variables that the log options name."""
    options = record.spec.log.options
    environment = dict(entry.partition("=")[::2] for entry in record.spec.env)
    found = _chosen(record.spec.labels, options.get("labels"), options.get("labels-regex"))
    found |= _chosen(environment, options.get("env"), options.get("env-regex"))
    if options.get("tag"):
        found["tag"] = _tag(options["tag"], record)
    return ",".join(f"{quote_plus(key)}={quote_plus(found[key])}" for key in sorted(found))


def _chosen(among: Mapping[str, str], names: str | None, pattern: str | None) -> dict[str, str]:
    found = {name: among[name] for name in (names or "").split(",") if name in among}
    if pattern:
        try:
            chosen = re.compile(pattern)
        except re.error:
            return found
        found |= {name: value for name, value in among.items() if chosen.search(name)}
    return found


def _tag(template: str, record: ContainerRecord) -> str:
    """Docker's templates of tags, without their functions."""
    values = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": record.image.image_id,
        "ImageName": record.image.reference,
        "DaemonName": "docker",
    }
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda found: values.get(found[1], found[0]), template)
