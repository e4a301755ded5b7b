"""What an instruction of a Dockerfile must look like, in the words of docker's classic builder."""

import json
import posixpath
import re
from collections.abc import Sequence
from typing import Protocol

_KNOWN = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR".split()
)
_FLAGS = {
    "FROM": ("platform",),
    "ADD": ("chown", "chmod"),
    "COPY": ("chown", "chmod", "from"),
    "RUN": ("mount", "network", "security"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "retries"),
}
_MANY = frozenset({"ADD", "ARG", "COPY", "ENV", "EXPOSE", "LABEL", "ONBUILD", "VOLUME"})
_ONE = frozenset({"MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"})
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_WILD = re.compile(r"[*?\[]")
_PORT = re.compile(r"\d+(-\d+)?(/\w+)?")
_PAIR = re.compile(r"""(?:"[^"]*"|'[^']*'|\\.|[^\s"'])+""")


class Instruction(Protocol):
    """One instruction as it was read."""

    @property
    def name(self) -> str:
        """In capitals."""

    @property
    def rest(self) -> str:
        """What follows the name."""


def flags_and_words(step: Instruction) -> tuple[dict[str, str], str]:
    """Take the flags before an instruction's own words away: flags and the rest."""
    rest, found = step.rest, {}
    while rest.startswith("--") and step.name in _FLAGS:
        word, _, rest = rest.partition(" ")
        if word == "--":
            break
        name, _, value = word[2:].partition("=")
        found[name] = value
        rest = rest.lstrip()
    return found, rest


def words_of(rest: str) -> list[str]:
    """Words of COPY, ADD and the like: a JSON list, or what spaces separate."""
    if rest.startswith("["):
        try:
            found = json.loads(rest)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return rest.split()


def wrong_form(step: Instruction) -> str | None:
    """What docker says of the whole file where an instruction cannot even be split; None if it can."""
    if step.name in ("ENV", "LABEL"):
        first = _PAIR.match(step.rest)
        if first is not None and "=" not in first[0] and not step.rest[first.end() :].strip():
            return f"{step.name} must have two arguments"
        if first is not None and "=" in first[0]:
            strange = next((word for word in _PAIR.findall(step.rest) if "=" not in word), None)
            if strange is not None:
                return (
                    f"Syntax error - can't find = in {json.dumps(strange)}. "
                    "Must be of the form: name=value"
                )
    return None


def wrong(step: Instruction) -> str | None:  # noqa: C901, PLR0911 - a list of rules
    """What docker says of an instruction that it refuses before it builds anything; None if it is well."""
    if step.name not in _KNOWN:
        return f"unknown instruction: {step.name}"
    flags, rest = flags_and_words(step)
    strange = next((name for name in flags if name not in _FLAGS[step.name]), None)
    if strange is not None:
        return f"unknown flag: --{strange}"
    if step.name in _MANY and not rest:
        return f"{step.name} requires at least one argument"
    if step.name in _ONE and not rest:
        return f"{step.name} requires exactly one argument"
    if step.name == "RUN" and not rest:
        return "RUN requires at least one argument"
    if step.name == "FROM":
        return _wrong_from(rest.split())
    if step.name in ("ADD", "COPY") and len(words_of(rest)) == 1:
        return (
            f"{step.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    if step.name in ("ENV", "LABEL", "ARG") and any(
        word.startswith("=") for word in _PAIR.findall(rest)
    ):
        return f"{step.name} names can not be blank"
    if step.name == "SHELL" and not _is_list(rest):
        return "SHELL requires the arguments to be in JSON form"
    if step.name == "ONBUILD":
        return _wrong_trigger(rest)
    if step.name == "HEALTHCHECK":
        return _wrong_check(rest, flags)
    return None


def _wrong_from(words: Sequence[str]) -> str | None:
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        return "FROM requires either one or three arguments"
    if len(words) == 3 and not _STAGE_NAME.fullmatch(words[2].lower()):
        return (
            f"invalid name for build stage: {json.dumps(words[2])}, "
            "name can't start with a number or contain symbols"
        )
    return None


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _wrong_trigger(rest: str) -> str | None:
    name = rest.split(maxsplit=1)[0].upper()
    if name == "ONBUILD":
        return "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
    return f"{name} isn't allowed as an ONBUILD trigger" if name in ("FROM", "MAINTAINER") else None


def _wrong_check(rest: str, flags: dict[str, str]) -> str | None:
    words = rest.split()
    if not words:
        return "HEALTHCHECK requires at least one argument"
    kind = words[0].upper()
    if kind == "NONE":
        return "HEALTHCHECK NONE takes no arguments" if words[1:] else None
    if kind != "CMD":
        return f"Unknown type {json.dumps(kind)} in HEALTHCHECK (try CMD)"
    if not words[1:]:
        return "Missing command after HEALTHCHECK CMD"
    for name, value in flags.items():
        if name != "retries" and not re.fullmatch(r"(?:[\d.]+(?:ns|us|µs|ms|s|m|h))+|0", value):
            return _wrong_duration(value)
    return None


def _wrong_duration(text: str) -> str:
    """What Go says of it."""
    unit = re.match(r"[\d.]+([^\d.]*)", text)
    if unit is None:
        return f'time: invalid duration "{text}"'
    if not unit[1]:
        return f'time: missing unit in duration "{text}"'
    return f'time: unknown unit "{unit[1]}" in duration "{text}"'


def fails_at(step: Instruction) -> str | None:
    """What docker says once it comes to an instruction that cannot succeed; None if it may.

    Only what shows without the values of variables.
    """
    flags, rest = flags_and_words(step)
    words = words_of(rest)
    if step.name == "EXPOSE":
        strange = next((w for w in words if "$" not in w and not _PORT.fullmatch(w)), None)
        return f"Invalid containerPort: {strange}" if strange is not None else None
    if step.name not in ("ADD", "COPY") or "$" in rest:
        return None
    *sources, target = words
    if len(sources) > 1 and not (target.endswith("/") or target in (".", "..")):
        return (
            f"When using {step.name} with more than one source file, the destination must be a "
            "directory and end with a /"
        )
    if "from" not in flags:
        outside = next((word for word in sources if _leads_out(word)), None)
        if outside is not None:
            return f"{step.name} failed: forbidden path outside the build context: {outside} ()"
    return None


def _leads_out(source: str) -> bool:
    if "://" in source:
        return False
    found = posixpath.normpath(source.lstrip("/") or ".")
    return found == ".." or found.startswith("../")


def is_wild(step: Instruction) -> bool:
    """Whether a source of COPY or ADD is a pattern."""
    return bool(_WILD.search(" ".join(words_of(flags_and_words(step)[1])[:-1])))


def is_unseen(name: str) -> bool:
    """Whether docker runs nothing for an instruction, and so names no container of it."""
    return name in ("FROM", "ADD", "COPY")
