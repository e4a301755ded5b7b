"""Errors that cross the bus: each has a stable `code` and travels as a `Problem`.

Without pydantic, which takes longer to load than a child of the runtime agent takes to unpack a small layer.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from labfleet_proto.problem import Problem


class LabfleetError(Exception):
    """Base of all errors with a code; the message says what was attempted on what."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s: float | None = None

    def to_problem(self) -> "Problem":
        """Return the form that crosses the bus."""
        from labfleet_proto.problem import Problem  # noqa: PLC0415 - only who sends one needs it

        return Problem(code=self.code, message=self.message, retry_after_s=self.retry_after_s)


class InternalError(LabfleetError):
    """A fault of ours. Docker's 500."""


class PermanentError(LabfleetError):
    """The same call can never succeed."""


class InvalidRequestError(PermanentError):
    """The request breaks a rule that the message names. Docker's 400."""

    code = "invalid"


class NotFoundError(PermanentError):
    """The named thing does not exist, or the tenant may not see it. Docker's 404."""

    code = "not_found"


class ConflictError(PermanentError):
    """The thing's state or name forbids this. Docker's 409."""

    code = "conflict"


class ForbiddenError(PermanentError):
    """A tenant may never express this. Docker's 403."""

    code = "forbidden"


class NotModifiedError(PermanentError):
    """It already is as asked. Docker's 304 for start and stop."""

    code = "not_modified"


class NotImplementedYetError(PermanentError):
    """The part is missing; the message names it. Docker's 501."""

    code = "not_implemented"


class CommandNotRunnableError(PermanentError):
    """The container's command cannot be executed; `exit_code` is 127 (not found) or 126. Docker's 400."""

    code = "command_not_runnable"


class DigestMismatchError(PermanentError):
    """Bytes do not match the digest they were named by."""

    code = "digest_mismatch"


class TransientError(LabfleetError):
    """May succeed later; `retry_after_s` says when to try."""

    code = "transient"


class UnavailableError(TransientError):
    """A service or host does not answer. Docker's 503."""

    code = "unavailable"


class RateLimitedError(TransientError):
    """Somebody else's limit of requests is reached. HTTP's 429."""

    code = "rate_limited"


class HandedOnError(TransientError):
    """The instance that was asked may not answer any more; the bus asks the next one."""

    code = "handed_on"


class NoRoomError(TransientError):
    """No host, or not this host, has room; the message lists the reasons. Docker's 500 as from a full engine."""

    code = "no_room"


class DiskFullError(TransientError):
    """Too little disk space would remain."""

    code = "disk_full"


class PortInUseError(TransientError):
    """A host port is taken."""

    code = "port_in_use"


class StaleError(TransientError):
    """The message is older (generation, attempt or epoch) than what is known. Re-read and decide again."""

    code = "stale"


class IllegalTransitionError(Exception):
    """A bug, not a failure: a state moved against the table. Let it crash the task."""


def _codes(kind: type[LabfleetError]) -> dict[str, type[LabfleetError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        for code, cls in _codes(child).items():
            found.setdefault(code, cls)
    return found


BY_CODE: dict[str, type[LabfleetError]] = {
    **_codes(LabfleetError),
    InternalError.code: InternalError,
}
"""The bases have no code of their own: `internal` is an `InternalError`."""
