"""Why a build failed: the builder's last words in those of docker's classic builder."""

import json
import re
from collections.abc import Sequence

from labfleet_proto.errors import LabfleetError
from labfleet_runtime_agent.core.dockerfile import Step
from labfleet_runtime_agent.core.dockerfile_rules import flags_and_words, is_wild

_AT_STEP = re.compile(r'Error: building at STEP "(?P<step>.*?)": (?P<why>.*)', re.DOTALL)
_STATUS = re.compile(r"while running runtime: exit status (\d+)")
_MISSING = re.compile(r'copier: stat: \[?"/?([^"]*)"\]?: no such file or directory')
_NO_MATCH = re.compile(r"no items matching glob \"[^\"]*?/?([^\"/]*)\" copied")
_NOT_RUN = re.compile(r"error running container: from \S+ creating container for \[.*?\]: (.*)")
_NO_USER = re.compile(r'unknown user error looking up user "([^"]*)"')
_AT = 'Error: building at STEP "'
_LAST_WORDS = ("Error: ", "error running container: ")


class BuildFailedError(LabfleetError):
    """A step failed; `exit_code` is that of its command, or None."""

    code = "build_failed"

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def split_at_last_word(line: str) -> tuple[str, str]:
    """Split a line of standard error: what a command printed, and what may be why the build failed."""
    for mark in (_AT, *_LAST_WORDS):
        at = line.find(mark)
        if at == 0 or (at > 0 and mark != "Error: "):
            return line[:at], line[at:]
    return line, ""


def failure_of(
    lines: Sequence[str], code: int, step: Step | None, shell: str
) -> tuple[list[str], LabfleetError]:
    """Lines of a command that were held back, and why the build failed.

    Args:
        lines: The end of standard error, from the first that may be the builder's.
        code: The builder's exit code.
        step: What it was at.
        shell: What a RUN without a list of words is run by.
    """
    first = next(
        (n for n in range(len(lines) - 1, -1, -1) if lines[n].startswith("Error: ")), len(lines)
    )
    before, text = list(lines[:first]), "\n".join(lines[first:]).strip()
    found = _AT_STEP.match(text)
    if found is None:
        words = text.removeprefix("Error: ") or "\n".join(before)
        return before, BuildFailedError(words or f"the builder ended with {code}")
    why = found["why"]
    not_run = next((n for n, line in enumerate(before) if _NOT_RUN.match(line)), None)
    if not_run is not None and step is not None:
        return before[:not_run], BuildFailedError(_not_runnable(before[not_run], step))
    if step is not None and (status := _STATUS.search(why)):
        number = int(status[1])
        command = f"The command '{_command(step, shell)}' returned a non-zero code: {number}"
        return before, BuildFailedError(command, number)
    return before, BuildFailedError(_reason(why, step, found["step"]))


def _reason(why: str, step: Step | None, text: str) -> str:
    verb = text.partition(" ")[0]
    missing = _MISSING.search(why) or _NO_MATCH.search(why)
    if missing is not None:
        if step is not None and is_wild(step):
            return f"{verb} failed: no source files were specified"
        if step is not None and "from" in flags_and_words(step)[0]:
            return f"{verb} failed: stat {missing[1]}: file does not exist"
        return (
            f"{verb} failed: file not found in build context or excluded by .dockerignore: "
            f"stat {missing[1]}: file does not exist"
        )
    if user := _NO_USER.search(why):
        return f"unable to find user {user[1]}: no matching entries in passwd file"
    return why.splitlines()[0]


def _words(rest: str) -> list[str] | None:
    try:
        words = json.loads(rest) if rest.startswith("[") else None
    except ValueError:
        return None
    return [str(word) for word in words] if isinstance(words, list) else None


def _command(step: Step, shell: str) -> str:
    """The command of a RUN as docker shows it."""
    rest = flags_and_words(step)[1]
    words = _words(rest)
    return f"{shell} {rest}" if words is None else " ".join(words)


def _not_runnable(line: str, step: Step) -> str:
    words = _words(flags_and_words(step)[1])
    command = words[0] if words else "/bin/sh"
    reason = "no such file or directory"
    if re.search(r"denied|not permitted", line, re.IGNORECASE):
        reason = "permission denied"
    elif "/" not in command:
        reason = "executable file not found in $PATH"
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f'unable to start container process: exec: "{command}": {reason}: unknown'
    )
