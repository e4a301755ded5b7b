"""Which image of an index is for a machine."""

import re
from dataclasses import dataclass

from labfleet_image_store.core.manifests import Descriptor, Manifest
from labfleet_proto.errors import InvalidRequestError, NotFoundError

_PLATFORM = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,2}")
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


@dataclass(frozen=True)
class Machine:
    """A platform as OCI names it."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """As docker writes it."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


OWN = Machine("linux", "amd64")
"""What a fleet's hosts are."""


def parse(text: str) -> Machine:
    """Parse `linux/arm64`, `arm64`, `linux/arm/v7`. Raises InvalidRequestError."""
    if not text:
        return OWN
    if _PLATFORM.fullmatch(text) is None:
        raise InvalidRequestError(f'"{text}" is an invalid component of "{text}"')
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", OWN.architecture] if parts[0] == "linux" else ["linux", parts[0]]
    architecture = _SAME.get(parts[1], parts[1])
    return Machine(parts[0], architecture, parts[2] if len(parts) > 2 else "")


def child_for(index: Manifest, machine: Machine) -> Descriptor:
    """The child of an index for a machine. Raises NotFoundError in docker's words."""
    wanted = machine.variant or _DEFAULT_VARIANT.get(machine.architecture, "")
    same = [
        child
        for child in index.children
        if child.platform is not None
        and (child.platform.os, child.platform.architecture) == (machine.os, machine.architecture)
    ]
    exact = [each for each in same if each.platform and each.platform.variant == wanted]
    loose = [
        each
        for each in same
        if not machine.variant or (each.platform and not each.platform.variant)
    ]
    for child in (*exact, *loose):
        return child
    if len(index.children) == 1 and index.children[0].platform is None:
        return index.children[0]
    raise NotFoundError(f"no matching manifest for {machine} in the manifest list entries")
