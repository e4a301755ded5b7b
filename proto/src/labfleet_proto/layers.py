"""Layers on hosts: who has which, how a host reads one from another, and fetching ahead of any container."""

from enum import StrEnum
from typing import Literal

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import ImagePin
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message


class BlobState(StrEnum):
    """What a host can serve of a layer's blob."""

    NONE = "none"
    PARTIAL = "partial"
    """It is being fetched: what has come is served, and the rest as it comes."""
    WHOLE = "whole"


class LayerCopy(Message):
    """Value of the `layer_copies` bucket: what one host has of a layer; written by that host's agent only."""

    host: HostId
    digest: Digest
    """Of the compressed blob."""
    blob: BlobState = BlobState.NONE
    is_unpacked: bool = False
    """Containers of the image can start there without fetching this layer."""


class ReadBlob(Message):
    """Read a layer's blob from a host that has it, from a byte on to its end.

    The answer's detail says the blob's `size`; then come pieces (`labfleet_chassis.pieces`).
    """

    op: Literal["blob"] = "blob"
    digest: Digest
    first: int = 0
    claim: int = 0
    """Revision at which the asker wrote that it fetches the layer itself, 0 if it has not.

    A host that has not all of it yet serves only those who began later: hosts never wait in a circle.
    """


class FetchLayers(Message):
    """Make an image's layers be there, though no container needs them yet."""

    image: ImagePin


class FetchProgress(Message):
    """How far the fetching of an image has come on one host."""

    total_bytes: int
    """Of all its layers, compressed."""
    here_bytes: int
    is_done: bool
    problem: str = ""
    """Why the last try failed; asking again tries again."""


FETCH_LAYERS = JobKind("fetch_layers", "runtime-agent", FetchLayers, FetchProgress)
"""Answers at once, with how far it is: whoever wants it done asks until it is.

Asking again while it goes on changes nothing; asking when all is there is done at once.
"""
