"""From which other hosts a layer is read, in which order: a tree over those who want it at once.

Every host writes down that it begins to fetch a layer before it looks who else does. The store puts these
claims in one order, so of hosts that begin together each sees those before it, and only the first of
all has to ask the image store. Nobody reads from one that began later: there are no circles.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.layers import BlobState, LayerCopy

BRANCHES = 2
"""How many hosts one serves while all of them begin together."""


@dataclass(frozen=True)
class Claim:
    """What a host has said of a layer, and the revision of its word."""

    copy: LayerCopy
    revision: int


def sources(me: HostId, digest: Digest, claims: Sequence[Claim]) -> tuple[HostId, ...]:
    """Hosts to read from, best first; none if only the image store is left.

    First comes the parent in the tree, then the others, differently for each host, so that the children
    of a host that is lost do not all go to the same one.
    """
    own = next((claim.revision for claim in claims if claim.copy.host == me), None)
    others = [claim for claim in claims if claim.copy.host != me]
    whole = [claim for claim in others if claim.copy.blob is BlobState.WHOLE]
    begun = [
        claim
        for claim in others
        if claim.copy.blob is BlobState.PARTIAL and own is not None and claim.revision < own
    ]
    known = [
        claim.copy.host
        for part in (whole, begun)
        for claim in sorted(part, key=lambda claim: claim.revision)
    ]
    if not known:
        return ()
    parent = known[(len(known) - 1) // BRANCHES]

    def shuffled(host: HostId) -> str:
        return hashlib.sha256(f"{me} {digest} {host}".encode()).hexdigest()

    return (parent, *sorted((host for host in known if host != parent), key=shuffled))
