"""What a Dockerfile asks for, as far as must be known before it is built: steps, stages, base images.

The builder parses it again; here stands what docker's own words, the numbering of steps and the base
images need.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.dockerfile_rules import (
    fails_at,
    flags_and_words,
    wrong,
    wrong_form,
)

_ESCAPE = re.compile(r"#\s*escape\s*=\s*([\\`])\s*", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-+])([^}]*))?\}|(\w+))")
_FROM_FLAG = re.compile(r"--from=(\S+)")
_SCRATCH = "scratch"
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Step:
    """One instruction."""

    line: int
    name: str
    rest: str
    text: str
    """As docker prints it: as it was written, without breaks."""


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows it."""

    steps: tuple[Step, ...]
    base: str
    """An image's name, or that of an earlier stage; empty for nothing at all."""
    name: str
    parent: int | None = None
    """Number of the stage that it continues."""


@dataclass(frozen=True)
class Recipe:
    """What there is to do."""

    stages: tuple[Stage, ...]
    """Up to the target."""
    images: tuple[str, ...]
    """Images that are needed, each once."""
    head: tuple[Step, ...] = ()
    """ARGs before the first FROM."""
    args: tuple[tuple[str, str], ...] = ()
    """What these say."""
    escape: str = "\\"
    warnings: tuple[str, ...] = ()
    """What docker says before the first step."""
    failure: tuple[int, str] | None = None
    """A step, counted as `steps` are, that cannot succeed, and docker's words for it."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that docker counts, in its order."""
        return (*self.head, *(step for stage in self.stages for step in stage.steps))

    def rewritten(self, ids: Mapping[str, str]) -> str:
        """The same with each image of `ids` named by its id, and no stage after the target."""
        lines = [f"# escape={self.escape}"] if self.escape != "\\" else []
        lines += [f"{step.name} {step.rest}" for step in self.head]
        for stage in self.stages:
            for step in stage.steps:
                lines.append(f"{step.name} {_by_id(step, dict(self.args), ids)}")
        return "\n".join(lines) + "\n"


def read(
    text: str, args: Mapping[str, str], target: str = "", labels: Collection[str] = ()
) -> Recipe:
    """Read a Dockerfile; `labels` are one more step each. Raises InvalidRequestError in docker's words."""
    steps, warnings = _steps(text)
    if not steps:
        raise InvalidRequestError("failed to parse Dockerfile: file with no instructions")
    for step in steps:
        if (why := wrong_form(step)) is not None:
            raise InvalidRequestError(f"failed to parse Dockerfile: {why}")
    for step in steps:
        if (why := wrong(step)) is not None:
            raise InvalidRequestError(f"dockerfile parse error on line {step.line}: {why}")
    first = next((n for n, step in enumerate(steps) if step.name == "FROM"), len(steps))
    before = steps[:first]
    strange = next((step for step in before if step.name != "ARG"), None)
    if strange is not None or first == len(steps):
        raise InvalidRequestError("no build stage in current context")
    values: dict[str, str] = {}
    for step in before:
        for word in step.rest.split():
            name, _, value = word.partition("=")
            values[name] = args.get(name, expand(value.strip("\"'"), values))
    stages = _stages(steps[first:], values, target)
    recipe = Recipe(
        stages,
        (),
        tuple(before),
        tuple(values.items()),
        _escape_of(text),
        warnings,
    )
    if len(recipe.steps) > _MOST_STEPS:
        raise InvalidRequestError(f"Dockerfile: more than {_MOST_STEPS} steps")
    return replace(recipe, images=_images(stages), failure=_failure(recipe, len(labels)))


def _stages(steps: Sequence[Step], values: Mapping[str, str], target: str) -> tuple[Stage, ...]:
    """The stages up to the target."""
    found: list[Stage] = []
    for step in steps:
        if step.name != "FROM":
            last = found[-1]
            found[-1] = replace(last, steps=(*last.steps, step))
            continue
        if target and found and found[-1].name == target.lower():
            break
        words = flags_and_words(step)[1].split()
        base = expand(words[0], values)
        names = [stage.name for stage in found]
        parent = (
            max(n for n, name in enumerate(names) if name == base.lower())
            if base and base.lower() in names
            else None
        )
        name = words[2].lower() if len(words) == 3 else ""
        found.append(Stage((step,), base, name, parent))
    if target and found[-1].name != target.lower():
        raise InvalidRequestError(f"failed to reach build target {target} in Dockerfile")
    return tuple(found)


def _images(stages: Sequence[Stage]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    names: list[str] = []
    for stage in stages:
        if stage.parent is None and stage.base not in ("", _SCRATCH):
            found[stage.base] = None
        names.append(stage.name)
        for step in stage.steps:
            source = source_image(step)
            if source and source.lower() not in names and not source.isdigit():
                found[source] = None
    return tuple(found)


def source_image(step: Step) -> str:
    """What `--from` names; empty if nothing."""
    if step.name not in ("COPY", "ADD"):
        return ""
    return flags_and_words(step)[0].get("from", "")


def _failure(recipe: Recipe, more: int) -> tuple[int, str] | None:
    """The first step that cannot succeed."""
    number = len(recipe.head)
    names: list[str] = []
    for index, stage in enumerate(recipe.stages):
        for step in stage.steps:
            number += 1
            why = fails_at(step)
            source = source_image(step)
            if step.name == "FROM" and not stage.base:
                word = flags_and_words(step)[1].split()[0]
                why = f"base name ({word}) should not be blank"
            elif step.name == "FROM" and stage.name and stage.name in names:
                why = f"{stage.name} stage name already used"
            elif source.isdigit() and int(source) >= index:
                why = f"invalid from flag value {source}: index out of bounds"
            if why is not None:
                return number, why
        names.append(stage.name)
    last = recipe.stages[-1]
    if last.base == _SCRATCH and len(last.steps) + more == 1:
        return number, "No image was generated. Is your Dockerfile empty?"
    return None


def _by_id(step: Step, values: Mapping[str, str], ids: Mapping[str, str]) -> str:
    if step.name == "FROM":
        image, *rest = flags_and_words(step)[1].split()
        image = expand(image, values)
        return " ".join([ids.get(image, image), *rest])
    source = source_image(step)
    if source in ids:
        return _FROM_FLAG.sub(f"--from={ids[source]}", step.rest, count=1)
    return step.rest


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


def _steps(text: str) -> tuple[list[Step], tuple[str, ...]]:
    """Instructions, and what docker says of empty lines inside of them."""
    escape = _escape_of(text)
    found: list[Step] = []
    holes: list[str] = []
    parts: list[str] = []
    begun, has_hole = 0, False
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        line = raw.strip() if not parts else raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#"):
            has_hole = has_hole or (bool(parts) and not line.strip())
            continue
        begun = begun if parts else number
        if line.endswith(escape):
            parts.append(line[:-1])
            continue
        found.append(_step(begun, "".join([*parts, line])))
        if has_hole:
            holes.append(f"Empty continuation line found in:\n    {found[-1].text}")
        parts, has_hole = [], False
    if parts:
        found.append(_step(begun, "".join(parts)))
    if holes:
        holes.append("Empty continuation lines will become errors in a future release.")
    return found, tuple(holes)


def _escape_of(text: str) -> str:
    for line in text.lstrip("\ufeff").splitlines():
        found = _ESCAPE.fullmatch(line.strip())
        if found is not None:
            return found[1]
        if not line.strip().startswith("#"):
            break
    return "\\"


def _step(line: int, text: str) -> Step:
    whole = text.strip()
    name, *rest = whole.split(None, 1)
    return Step(line, name.upper(), rest[0].strip() if rest else "", whole)
