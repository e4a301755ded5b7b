"""From a seccomp profile as docker's clients send it to the one of the OCI runtime-spec.

Docker's has rules that hold only for some processor, kernel or capability, and names processors by its own
words. What a rule of it means is written at moby's `profiles/seccomp`.
"""

import json
import re
from collections.abc import Collection
from typing import Any

from labfleet_proto.errors import InvalidRequestError

_ARCHITECTURE, _GO_ARCHITECTURE = "SCMP_ARCH_X86_64", "amd64"
"""The processor that these hosts have (`runtime.md`)."""
_RULE = ("action", "errnoRet", "args")
_WHOLE = (
    "defaultAction",
    "defaultErrnoRet",
    "flags",
    "listenerPath",
    "listenerMetadata",
)

Json = dict[str, Any]


def converted(text: str, held: Collection[str], kernel: str) -> Json:
    """The `linux.seccomp` object of a profile.

    Args:
        text: JSON.
        held: Capabilities of the container, without `CAP_`.
        kernel: Release of the host's kernel, such as `6.1.0-9-amd64`.

    Raises InvalidRequestError for what is no profile.
    """
    try:
        profile: Json = json.loads(text)
        found = {name: profile[name] for name in _WHOLE if profile.get(name) is not None}
        found["architectures"] = _architectures(profile)
        found["syscalls"] = [
            rule
            for each in profile.get("syscalls") or ()
            if _holds(each, held, _numbers(kernel))
            for rule in _rules(each)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidRequestError(f"seccomp profile: it cannot be read: {exc}") from exc
    return found


def _architectures(profile: Json) -> list[str]:
    if profile.get("architectures") and profile.get("archMap"):
        raise ValueError("both 'architectures' and 'archMap' are in it")
    for each in profile.get("archMap") or ():
        if each["architecture"] == _ARCHITECTURE:
            return [_ARCHITECTURE, *(each.get("subArchitectures") or ())]
    return list(profile.get("architectures") or [_ARCHITECTURE])


def _rules(rule: Json) -> list[Json]:
    names = list(rule.get("names") or ())
    if rule.get("name"):
        names.append(rule["name"])
    if not names:
        return []
    found: Json = {name: rule[name] for name in _RULE if rule.get(name) is not None}
    return [{"names": names, **found}]


def _holds(rule: Json, held: Collection[str], kernel: tuple[int, int]) -> bool:
    """Whether a rule is meant for this host and container."""
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    caps = {f"CAP_{name}" for name in held}
    is_excluded = (
        _GO_ARCHITECTURE in (unwanted.get("arches") or ())
        or bool(caps.intersection(unwanted.get("caps") or ()))
        or (bool(unwanted.get("minKernel")) and kernel >= _numbers(unwanted["minKernel"]))
    )
    is_included = (
        _GO_ARCHITECTURE in (wanted.get("arches") or (_GO_ARCHITECTURE,))
        and caps.issuperset(wanted.get("caps") or ())
        and (not wanted.get("minKernel") or kernel >= _numbers(wanted["minKernel"]))
    )
    return is_included and not is_excluded


def _numbers(release: str) -> tuple[int, int]:
    found = re.match(r"([0-9]+)\.([0-9]+)", release)
    if found is None:
        raise ValueError(f"{release!r} is no version of a kernel")
    return int(found[1]), int(found[2])
