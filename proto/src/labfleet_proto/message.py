"""The base of everything that crosses the bus or rests in the store."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A frozen message; unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Message):
    """The empty argument or result of a job."""
