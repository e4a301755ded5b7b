"""The form in which an error crosses the bus."""

from labfleet_proto.errors import BY_CODE, InternalError, LabfleetError
from labfleet_proto.message import Message


class Problem(Message):
    """An error on the wire."""

    code: str
    message: str
    retry_after_s: float | None = None

    def to_error(self) -> LabfleetError:
        """Rebuild the error that was raised on the other side; an unknown code is an `InternalError`."""
        kind = BY_CODE.get(self.code, InternalError)
        error = kind(self.message)
        error.retry_after_s = self.retry_after_s
        return error
