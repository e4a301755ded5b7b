"""The base of request bodies. What is set and not served is refused by name.

Names are read as dockerd's decoder reads them: in any case, and `null` says nothing. Clients send words of their own
beside docker's (dockerode: `name`); these begin small, as no field of docker does, and are ignored.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, model_validator

from labfleet_proto.errors import NotImplementedYetError


class Body(BaseModel):
    """Base: fields of docker that we do not serve land in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _as_dockerd_reads(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        known = {name.lower(): name for name in cls.model_fields}
        return {
            known.get(str(name).lower(), name): each
            for name, each in value.items()
            if each is not None
        }

    def refuse_unserved(self, prefix: str = "") -> None:
        """Raise NotImplementedYetError for the first unserved field that says something, at any depth."""
        for name, value in (self.model_extra or {}).items():
            says_nothing = value in (None, "", 0, False) or value in ([], {})
            if not says_nothing and not name[:1].islower():
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
