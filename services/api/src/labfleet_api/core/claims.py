"""Claims of networks that are not there: left by an api that ended between two writes."""

from collections.abc import Collection, Iterator, Mapping

from labfleet_proto.ids import NetworkId
from labfleet_proto.networks import NetworkNameRecord, SubnetClaim

ORPHAN_LIFE_S = 15.0
"""Longer than the making of a network may take."""


class Orphans:
    """How long claims have had no network."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, NetworkId], float] = {}

    def due(
        self,
        names: Mapping[str, NetworkNameRecord],
        subnets: Mapping[str, SubnetClaim],
        networks: Collection[str],
        now_s: float,
    ) -> Iterator[tuple[str, NetworkId]]:
        """Yield keys of claims, and the networks that they name, to be given back now.

        Args:
            names: Bucket `network_names`.
            subnets: Bucket `subnets`.
            networks: Ids of the networks that there are.
            now_s: Monotonic time.
        """
        claims = [(key, each.id) for key, each in names.items()]
        claims += [(key, each.network) for key, each in subnets.items()]
        orphans = [claim for claim in claims if claim[1] not in networks]
        self._since_s = {claim: self._since_s.get(claim, now_s) for claim in orphans}
        for claim, since_s in self._since_s.items():
            if now_s - since_s >= ORPHAN_LIFE_S:
                yield claim
