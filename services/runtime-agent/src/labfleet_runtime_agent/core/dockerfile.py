"""What a Dockerfile asks for, as far as must be known before it is built: steps, stages, base images.

The builder parses it again; here stands what docker's own words, the numbering of steps and the base
images need.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from labfleet_proto.errors import InvalidRequestError

_KNOWN = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
    "VOLUME WORKDIR".split()
)
_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-+])([^}]*))?\}|(\w+))")
_FROM_FLAG = re.compile(r"--from=(\S+)")
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Step:
    """One instruction."""

    line: int
    name: str
    rest: str

    @property
    def text(self) -> str:
        """As docker prints it."""
        return f"{self.name} {self.rest}"


@dataclass(frozen=True)
class Recipe:
    """What there is to do."""

    steps: tuple[Step, ...]
    """From the first FROM to the end of the target."""
    images: tuple[str, ...]
    """Images that are needed, each once."""
    head: tuple[Step, ...] = ()
    """ARGs before the first FROM."""
    args: tuple[tuple[str, str], ...] = ()
    """What these say."""
    escape: str = "\\"

    def rewritten(self, ids: Mapping[str, str]) -> str:
        """The same with each image of `ids` named by its id, and no stage after the target."""
        lines = [f"# escape={self.escape}"] if self.escape != "\\" else []
        lines += [step.text for step in self.head]
        for step in self.steps:
            lines.append(f"{step.name} {_by_id(step, dict(self.args), ids)}")
        return "\n".join(lines) + "\n"


def read(text: str, args: Mapping[str, str], target: str = "") -> Recipe:
    """Read a Dockerfile. Raises InvalidRequestError in docker's words."""
    steps = _steps(text)
    if not steps:
        raise InvalidRequestError("dockerfile parse error: file with no instructions")
    for step in steps:
        if step.name not in _KNOWN:
            raise InvalidRequestError(
                f"dockerfile parse error on line {step.line}: unknown instruction: {step.name}"
            )
        if not step.rest:
            raise InvalidRequestError(
                f"dockerfile parse error on line {step.line}: "
                f"{step.name} requires at least one argument"
            )
    first = next((n for n, step in enumerate(steps) if step.name == "FROM"), len(steps))
    before = steps[:first]
    strange = next((step for step in before if step.name != "ARG"), None)
    if strange is not None or first == len(steps):
        raise InvalidRequestError("no build stage in current context")
    values: dict[str, str] = {}
    for step in before:
        for word in step.rest.split():
            name, _, value = word.partition("=")
            values[name] = args.get(name, value.strip("\"'"))
    recipe = _cut(steps[first:], values, target)
    return replace(recipe, head=tuple(before), args=tuple(values.items()), escape=_escape_of(text))


def _cut(steps: list[Step], values: Mapping[str, str], target: str) -> Recipe:
    """Take what comes before the end of the target, and the images that it needs."""
    stages: list[str] = []
    images: dict[str, None] = {}
    kept: list[Step] = []
    is_found = not target
    for step in steps:
        if step.name == "FROM":
            if target and _is_stage(target, stages[-1:], len(stages) - 1):
                is_found = True
                break
            image, name = _from(step, values)
            if image.lower() not in stages and image != "scratch":
                images[image] = None
            stages.append(name)
        elif step.name in ("COPY", "ADD"):
            source = _FROM_FLAG.search(step.rest)
            if source and source[1].lower() not in stages and not source[1].isdigit():
                images[source[1]] = None
        kept.append(step)
    if not is_found and not _is_stage(target, stages[-1:], len(stages) - 1):
        raise InvalidRequestError(f"failed to reach build target {target} in Dockerfile")
    if len(kept) > _MOST_STEPS:
        raise InvalidRequestError(f"Dockerfile: more than {_MOST_STEPS} steps")
    return Recipe(tuple(kept), tuple(images))


def _by_id(step: Step, values: Mapping[str, str], ids: Mapping[str, str]) -> str:
    if step.name == "FROM":
        image, *rest = (word for word in step.rest.split() if not word.startswith("--"))
        image = expand(image, values)
        return " ".join([ids.get(image, image), *rest])
    source = _FROM_FLAG.search(step.rest) if step.name in ("COPY", "ADD") else None
    if source is not None and source[1] in ids:
        return step.rest.replace(source[0], f"--from={ids[source[1]]}", 1)
    return step.rest


def _is_stage(target: str, last: list[str], number: int) -> bool:
    return bool(last) and (target.lower() == last[0] or target == str(number))


def _from(step: Step, values: Mapping[str, str]) -> tuple[str, str]:
    """Image and name of a stage."""
    words = [word for word in step.rest.split() if not word.startswith("--")]
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise InvalidRequestError(
            f"dockerfile parse error on line {step.line}: FROM requires either one or three arguments"
        )
    image = expand(words[0], values)
    if not image:
        raise InvalidRequestError(f"base name ({words[0]}) should not be blank")
    return image, words[2].lower() if len(words) == 3 else ""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`."""

    def value(found: "re.Match[str]") -> str:
        name, sign, word = found[1] or found[4], found[2], found[3] or ""
        there = values.get(name, "")
        if sign == "-":
            return there or word
        if sign == "+":
            return word if there else ""
        return there

    return _VARIABLE.sub(value, text)


def _steps(text: str) -> list[Step]:
    escape = _escape_of(text)
    found: list[Step] = []
    parts: list[str] = []
    begun = 0
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        line = raw.strip() if not parts else raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun if parts else number
        if line.endswith(escape):
            parts.append(line[:-1])
            continue
        found.append(_step(begun, "".join([*parts, line])))
        parts = []
    if parts:
        found.append(_step(begun, "".join(parts)))
    return found


def _escape_of(text: str) -> str:
    for line in text.lstrip("\ufeff").splitlines():
        found = _ESCAPE.fullmatch(line.strip())
        if found is not None:
            return found[1]
        if not line.strip().startswith("#"):
            break
    return "\\"


def _step(line: int, text: str) -> Step:
    name, _, rest = text.strip().partition(" ")
    if "\t" in name:
        name, _, more = name.partition("\t")
        rest = f"{more} {rest}"
    return Step(line, name.upper(), rest.strip())
