"""The base of request bodies. What is set and not served is refused by name."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from labfleet_proto.errors import NotImplementedYetError


class Body(BaseModel):
    """Base: fields of docker that we do not serve land in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def refuse_unserved(self, prefix: str = "") -> None:
        """Raise NotImplementedYetError for the first unserved field that says something, at any depth."""
        for name, value in (self.model_extra or {}).items():
            if value not in (None, "", 0, False) and value not in ([], {}):
                raise NotImplementedYetError(f"labfleet: {prefix}{name} is not there yet")
        for name in type(self).model_fields:
            for body in _bodies(getattr(self, name)):
                body.refuse_unserved(f"{prefix}{name}.")


def _bodies(value: object) -> Iterator[Body]:
    """The bodies in a field: itself, of a list, of a map."""
    if isinstance(value, Body):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _bodies(each)
