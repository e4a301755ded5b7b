"""What buildah says, in the words of docker's classic builder."""

import json
import re
from collections.abc import Sequence
from typing import Any

from labfleet_proto.errors import LabfleetError
from labfleet_runtime_agent.core.dockerfile import Step

_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: (.*)")
_CACHED = re.compile(r"--> Using cache ([0-9a-f]{12})[0-9a-f]*")
_MADE = re.compile(r"--> ([0-9a-f]{11,})")
_DROPPED = re.compile(
    r"(?:\[\d+/\d+\] )?COMMIT.*|[0-9a-f]{64}|Successfully tagged .*|time=.*level=(?:warning|info|debug).*"
    r"|Getting image source signatures|Copying (?:blob|config) .*|Writing manifest to .*|Storing signatures"
)
_AT_STEP = re.compile(r'Error: building at STEP "(?P<step>.*?)": (?P<why>.*)', re.DOTALL)
_STATUS = re.compile(r"while running runtime: exit status (\d+)")
_MISSING = re.compile(r'copier: stat: "/?([^"]*)": no such file or directory')
_NO_MATCH = re.compile(r"no items matching glob \"[^\"]*?/?([^\"/]*)\" copied")


class BuildFailedError(LabfleetError):
    """A step failed; `exit_code` is that of its command, or None."""

    code = "build_failed"

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Translator:
    """Turns lines of standard output and standard error into docker's JSON documents."""

    def __init__(self, steps: Sequence[Step], more_steps: int = 0) -> None:
        self._steps = steps
        self._total = len(steps) + more_steps
        self._number = 0
        self._errors: list[str] = []

    def said(self, line: str) -> list[dict[str, Any]]:
        """A line of standard output."""
        if found := _STEP.fullmatch(line):
            text = found[1]
            if self._number < len(self._steps):
                text = self._steps[self._number].text
            self._number += 1
            return [_stream(f"Step {self._number}/{self._total} : {text}\n")]
        if found := _CACHED.fullmatch(line):
            return [_stream(" ---> Using cache\n")]
        if found := _MADE.fullmatch(line):
            return [_stream(f" ---> {found[1][:12]}\n")]
        if _DROPPED.fullmatch(line):
            return []
        return [_stream(line + "\n")]

    def complained(self, line: str) -> list[dict[str, Any]]:
        """A line of standard error: of a command, or the builder's last word."""
        if line.startswith("Error: ") or self._errors:
            self._errors.append(line)
            return []
        if _DROPPED.fullmatch(line):
            return []
        return [_stream(f"\x1b[91m{line}\n\x1b[0m")]

    def failure(self, code: int) -> LabfleetError:
        """Why it ended with a code other than 0."""
        text = "\n".join(self._errors).strip()
        found = _AT_STEP.match(text)
        if found is None:
            return BuildFailedError(
                text.removeprefix("Error: ") or f"the builder ended with {code}"
            )
        why = found["why"]
        if status := _STATUS.search(why):
            number = int(status[1])
            return BuildFailedError(
                f"The command '{_command(self._current(found['step']))}' returned a non-zero code: {number}",
                number,
            )
        missing = _MISSING.search(why) or _NO_MATCH.search(why)
        if missing is not None:
            verb = found["step"].partition(" ")[0]
            return BuildFailedError(
                f"{verb} failed: file not found in build context or excluded by .dockerignore: "
                f"stat {missing[1]}: file does not exist"
            )
        return BuildFailedError(why.splitlines()[0])

    def _current(self, fallback: str) -> str:
        number = self._number - 1
        return self._steps[number].text if 0 <= number < len(self._steps) else fallback


def _command(step: str) -> str:
    """The command of a RUN as docker shows it."""
    rest = step.partition(" ")[2].strip()
    try:
        words = json.loads(rest) if rest.startswith("[") else None
    except ValueError:
        words = None
    return (
        " ".join(str(word) for word in words) if isinstance(words, list) else f"/bin/sh -c {rest}"
    )


def _stream(text: str) -> dict[str, Any]:
    return {"stream": text}


def error_document(error: LabfleetError) -> dict[str, Any]:
    """Docker's last line of a stream that failed."""
    detail: dict[str, Any] = {"message": error.message}
    if isinstance(error, BuildFailedError) and error.exit_code is not None:
        detail["code"] = error.exit_code
    return {"errorDetail": detail, "error": error.message}
