"""What crun says of a command that it cannot run, as docker says it; the words of two of its versions."""

import pytest

from labfleet_proto.errors import CommandNotRunnableError, InternalError
from labfleet_runtime_agent.adapters.conmon import failure

_NOT_FOUND = 'exec: "nope": executable file not found in $PATH: unknown'


@pytest.mark.parametrize(
    ("said", "command", "words"),
    [
        ("executable file `nope` not found in $PATH: No such file or directory", "nope", _NOT_FOUND),
        ("executable file `nope` not found: No such file or directory", "nope", _NOT_FOUND),
        ("open executable: Permission denied", "/etc/passwd", "permission denied: unknown"),
        ("the path `/etc/passwd` exists but it is not executable: Operation not permitted",
         "/etc/passwd", 'exec: "/etc/passwd": permission denied: unknown'),
        ("the path `/etc` is not a regular file: Operation not permitted",
         "/etc", 'exec: "/etc": permission denied: unknown'),
        ("cannot open `/etc/passwd/x`: Not a directory",
         "/etc/passwd/x", 'exec: "/etc/passwd/x": no such file or directory: unknown'),
    ],
)  # fmt: skip
def test_a_command_that_cannot_run(said: str, command: str, words: str) -> None:
    error = failure(said, command)
    assert isinstance(error, CommandNotRunnableError)
    assert words in error.message


@pytest.mark.parametrize(
    "said", ["cannot open `/proc/self/uid_map`: Permission denied", "mount `proc` to `proc`: Invalid argument"]
)  # fmt: skip
def test_any_other_fault_is_ours(said: str) -> None:
    assert isinstance(failure(said, "sh"), InternalError)
