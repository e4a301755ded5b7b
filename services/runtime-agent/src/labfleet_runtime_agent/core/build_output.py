"""What buildah says, in the words of docker's classic builder.

buildah announces each instruction by `[stage/stages] STEP n/m: ...` and says `--> id` when it is done.
What the commands print stands between, in the same stream, with or without an end of line. Only the
one announcement that must come next is taken for one, and an id only where an announcement follows it.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from labfleet_proto.errors import LabfleetError
from labfleet_runtime_agent.core.build_failures import (
    BuildFailedError,
    failure_of,
    split_at_last_word,
)
from labfleet_runtime_agent.core.dockerfile import Recipe, Step
from labfleet_runtime_agent.core.dockerfile_rules import is_unseen

_CACHED = re.compile(r"--> Using cache ([0-9a-f]{64})")
_MADE = re.compile(r"(.*)--> ([0-9a-f]{11,12})", re.DOTALL)
"""Eleven digits of an id up to buildah 1.28 of Debian 12, twelve in 1.39 of Debian 13."""
_WHOLE_ID = re.compile(r"[0-9a-f]{64}")
_LOGGED = re.compile(r'time="[^"]*" level=\w+ msg=.*')
_MOUNTS = "retrieving list of mounts"
_UNUSED_ARGS = re.compile(r"\[Warning\] one or more build args were not consumed: \[(.*)\]")
_LONGEST_HELD = 1 << 20


class _Kind(Enum):
    """What a line may be that is held back until the next one says more."""

    COMMIT = auto()
    MADE = auto()
    WHOLE_ID = auto()


_ORDERS = (
    (_Kind.COMMIT, _Kind.MADE, _Kind.WHOLE_ID),
    (_Kind.MADE, _Kind.WHOLE_ID),
)


@dataclass
class _Held:
    """One line that is held back."""

    kind: _Kind
    raw: str
    before: str = ""
    """What a command printed on the same line."""
    image: str = ""


class Translator:
    """Turns standard output and standard error of a build into docker's JSON documents."""

    def __init__(
        self,
        recipe: Recipe,
        bases: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
        *,
        key: str = "",
        is_cached: bool = True,
        full_id: Callable[[str], str] = lambda short: short,
    ) -> None:
        """Translate the build of a recipe.

        Args:
            recipe: What is built.
            bases: Ids of the images that it names.
            labels: Added at its end, each as one more step.
            key: Names the build; what a step runs in is named after it.
            is_cached: Whether the cache may be used.
            full_id: Finds the twelve digits of an id of which eleven or all are known.
        """
        self._recipe = recipe
        self._bases = bases
        self._key = key
        self._full_id = full_id
        self._is_cached = is_cached
        stages = [list(stage.steps) for stage in recipe.stages]
        for name, value in sorted((labels or {}).items()):
            text = f"{name}={value}"
            stages[-1].append(Step(0, "LABEL", text, f"LABEL {text}"))
        self._stages = stages
        self._total = len(recipe.head) + sum(len(steps) for steps in stages)
        self._stage = 0
        self._step = 0
        self._triggers = 0
        self._verb = ""
        """Name of the instruction that was announced."""
        self._tail = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held: list[_Held] = []
        self._errors: list[str] = []
        self._warning = ""
        self._is_open = False
        """Whether a step has been announced and its id not yet."""
        self._is_running = False
        """Whether `Running in` was said of it."""
        self._has_missed = not is_cached
        self._from_image = ""
        """Id that a FROM leads to and that is still to be said."""
        self._ids: list[str] = []
        """Ids that stages came to."""
        self.image = ""
        """Id of the image, once it is whole."""

    # -- standard output

    def begun(self) -> list[dict[str, Any]]:
        """What comes before the first step."""
        said = [_stream(f"\x1b[91m[WARNING]: {each}\n\x1b[0m") for each in self._recipe.warnings]
        for number, step in enumerate(self._recipe.head, 1):
            said.append(_stream(f"Step {number}/{self._total} : {step.text}\n"))
        return said

    def said(self, data: bytes) -> list[dict[str, Any]]:
        """More of standard output."""
        found: list[dict[str, Any]] = []
        *lines, self._tail = (self._tail + self._decoder.decode(data)).split("\n")
        for line in lines:
            found += self._line(line)
        if self._tail and not self._may_announce(self._tail):
            found += self._output(self._tail)
            self._tail = ""
        return found

    def ended(self) -> list[dict[str, Any]]:
        """The end of a build that went well; `image` is set if it was whole."""
        found = self._flush_errors()
        kinds = [each.kind for each in self._held]
        if kinds and kinds[-1] is _Kind.WHOLE_ID:
            self.image = self._held[-1].image
            found += self._made(self._held[-2].before, self.image)
            self._held = []
        if self._held or self._tail:
            found += self._output(self._tail)
        return [*found, _stream(self._warning)] if self._warning else found

    def _line(self, line: str) -> list[dict[str, Any]]:  # noqa: PLR0911 - a list of kinds
        if (announced := self._announcement(line)) is not None:
            return announced
        if self._is_open and not self._is_running and (cached := _CACHED.fullmatch(line)):
            image = cached[1]
            self._is_open = False
            self._ids[-1:] = [image]
            is_inner = self._is_trigger() and self._step < self._triggers + 1
            return [
                *self._head(),
                _stream(" ---> Using cache\n"),
                *([] if is_inner else [_stream(f" ---> {image[:12]}\n")]),
            ]
        held = self._holdable(line)
        if held is None:
            unused = _UNUSED_ARGS.fullmatch(line) if self._is_last() else None
            if unused is None:
                return self._output(f"{line}\n")
            self._warning = f"[Warning] One or more build-args [{unused[1]}] were not consumed\n"
            return []
        order = [*(each.kind for each in self._held), held.kind]
        if any(tuple(order) == allowed[: len(order)] for allowed in _ORDERS):
            self._held.append(held)
            return []
        found = self._output("")
        if held.kind is _Kind.WHOLE_ID:
            return [*found, *self._output(f"{line}\n")]
        self._held.append(held)
        return found

    def _holdable(self, line: str) -> _Held | None:
        commit = self._commit()
        if line.endswith(commit) and self._is_last():
            return _Held(_Kind.COMMIT, line, line.removesuffix(commit))
        if made := _MADE.fullmatch(line):
            return _Held(_Kind.MADE, line, made[1], made[2])
        last = self._held[-1] if self._held else None
        if _WHOLE_ID.fullmatch(line) and last is not None and line.startswith(last.image or "-"):
            return _Held(_Kind.WHOLE_ID, line, image=line)
        return None

    # -- announcements

    def _prefix(self, stage: int) -> str:
        total = len(self._stages)
        return f"[{stage}/{total}] " if total > 1 else ""

    def _commit(self) -> str:
        return f"{self._prefix(len(self._stages))}COMMIT"

    def _nexts(self) -> list[tuple[int, str]]:
        """The stage and the words of each announcement that may come now."""
        found = []
        steps = len(self._stages[self._stage - 1]) + self._triggers if self._stage else 0
        if self._stage and (self._step == 1 or self._step < steps):
            found.append((self._stage, f"{self._prefix(self._stage)}STEP {self._step + 1}/"))
        if self._stage < len(self._stages) and self._step >= steps:
            found.append((self._stage + 1, f"{self._prefix(self._stage + 1)}STEP 1/"))
        return found

    def _may_announce(self, tail: str) -> bool:
        """Whether a line that has not ended may be more than output."""
        if len(tail) > _LONGEST_HELD:
            return False
        if self._held:
            return True
        nexts = (mark for _, mark in self._nexts())
        for mark in (*nexts, "--> ", self._commit(), "[Warning] one or more"):
            if mark in tail or any(tail.endswith(mark[:size]) for size in range(1, len(mark))):
                return True
        return False

    def _announcement(self, line: str) -> list[dict[str, Any]] | None:
        """The announcement that a line ends with; None if it has none."""
        for stage, mark in self._nexts():
            before, sign, rest = line.rpartition(mark)
            count = re.match(r"(\d+): (\w*)", rest)
            if not sign or count is None:
                continue
            more = int(count[1]) - len(self._stages[stage - 1])
            if more < 0 or (self._step > 1 and stage == self._stage and more != self._triggers):
                continue
            found = [*self._flush_errors(), *self._step_done(before)]
            if stage > self._stage:
                self._stage, self._step, self._triggers = stage, 1, 0
                self._has_missed = not self._is_cached
            else:
                self._step += 1
                self._triggers = more
            self._verb = count[2].upper()
            return [*found, *self._announce()]
        return None

    def _announce(self) -> list[dict[str, Any]]:
        if self._step == 1:
            self._set_from()
            return [_stream(self._title(self._stage_step(0)))]
        self._is_open, self._is_running = True, False
        found: list[dict[str, Any]] = []
        if self._is_trigger():
            if self._step == 2:
                word = "trigger" if self._triggers == 1 else "triggers"
                found.append(_stream(f"# Executing {self._triggers} build {word}\n"))
                self._from_image = ""
        else:
            found += [*self._head(), _stream(self._title(self._now()))]
        if self._has_missed:
            found += self._run()
        return found

    def _set_from(self) -> None:
        stage = self._recipe.stages[self._stage - 1]
        image = (
            self._ids[stage.parent]
            if stage.parent is not None
            else self._bases.get(stage.base, "").removeprefix("sha256:")
        )
        self._ids.append(image)
        self._from_image = f" ---> {image[:12]}\n"

    def _head(self) -> list[dict[str, Any]]:
        """The image that FROM led to, said once it is clear that nothing of it is run first."""
        text, self._from_image = self._from_image, ""
        return [_stream(text)] if text else []

    def _is_trigger(self) -> bool:
        return 1 < self._step <= self._triggers + 1

    def _is_last(self) -> bool:
        steps = len(self._stages[-1]) + self._triggers
        return self._stage == len(self._stages) and self._step >= steps

    def _stage_step(self, index: int) -> Step:
        steps = self._stages[self._stage - 1]
        return steps[min(index, len(steps) - 1)]

    def _now(self) -> Step:
        return self._stage_step(self._step - 1 - self._triggers)

    def _title(self, step: Step) -> str:
        before = sum(len(steps) for steps in self._stages[: self._stage - 1])
        index = 0 if self._step == 1 else self._step - 1 - self._triggers
        number = len(self._recipe.head) + before + index + 1
        return f"Step {number}/{self._total} : {step.text}\n"

    # -- what a step says

    def _where(self) -> str:
        """Name of what a step runs in, as docker names a container."""
        word = f"{self._key} {self._stage} {self._step}"
        return hashlib.sha256(word.encode()).hexdigest()[:12]

    def _runs(self) -> bool:
        return not is_unseen(self._verb)

    def _run(self) -> list[dict[str, Any]]:
        if self._is_running or not self._is_open:
            return []
        self._is_running = True
        self._has_missed = True
        return [*self._head(), *([_stream(f" ---> Running in {self._where()}\n")] * self._runs())]

    def _step_done(self, before: str) -> list[dict[str, Any]]:
        """Say the id of the step that was held back, before the next one is announced."""
        held = self._held.pop() if self._held and self._held[-1].kind is _Kind.MADE else None
        if held is None:
            return self._output(before) if before or self._held else []
        return [*self._output(""), *self._made(held.before, held.image)]

    def _made(self, before: str, image: str) -> list[dict[str, Any]]:
        if not self._is_open:
            return self._head()
        found = [*(self._output(before) if before else []), *self._run()]
        image = self._full_id(image)
        self._ids[-1:] = [image]
        self._is_open = False
        if self._runs():
            found.append(_stream(f"Removing intermediate container {self._where()}\n"))
        if not self._is_trigger() or self._step == self._triggers + 1:
            found.append(_stream(f" ---> {image[:12]}\n"))
        return found

    def _output(self, text: str) -> list[dict[str, Any]]:
        """What a command printed, with what was held back before it."""
        whole = "".join(f"{each.raw}\n" for each in self._held) + text
        self._held = []
        return [*self._run(), _stream(whole)] if whole else []

    # -- standard error

    def complained(self, line: str) -> list[dict[str, Any]]:
        """A line of standard error: of a command, or the builder's last word."""
        before, last = split_at_last_word(line)
        if last or self._errors:
            self._errors.append(last or line)
            return [*self._run(), _stream(f"\x1b[91m{before}\x1b[0m")] if before else []
        if _LOGGED.fullmatch(line) and (not self._is_open or _MOUNTS in line):
            return []  # the builder's own; while a step is open it is a command's
        return [*self._run(), _stream(f"\x1b[91m{line}\n\x1b[0m")]

    def _flush_errors(self) -> list[dict[str, Any]]:
        """What looked like a last word and was none."""
        lines, self._errors = self._errors, []
        run = self._run() if lines else []
        return [*run, *(_stream(f"\x1b[91m{line}\n\x1b[0m") for line in lines)]

    def failed(self, code: int) -> tuple[list[dict[str, Any]], LabfleetError]:
        """A build that ended with a code other than 0: what is still to be said, and why it failed."""
        found = self._output(self._tail) if self._held or self._tail else []
        if self._is_open and self._verb == "RUN":
            found += self._run()
        step = self._now() if self._stage and self._step > 1 else None
        lines, why = failure_of(self._errors, code, step, self._shell())
        return [*found, *(_stream(f"\x1b[91m{each}\n\x1b[0m") for each in lines)], why

    def _shell(self) -> str:
        """The shell of a RUN, as the stage's last SHELL says it."""
        words = ["/bin/sh", "-c"]
        for step in self._stages[self._stage - 1][: self._step] if self._stage else []:
            if step.name == "SHELL":
                words = [str(each) for each in json.loads(step.rest)]
        return " ".join(words)


def _stream(text: str) -> dict[str, Any]:
    return {"stream": text}


def error_document(error: LabfleetError) -> dict[str, Any]:
    """Docker's last line of a stream that failed."""
    detail: dict[str, Any] = {"message": error.message}
    if isinstance(error, BuildFailedError) and error.exit_code is not None:
        detail["code"] = error.exit_code
    return {"errorDetail": detail, "error": error.message}
