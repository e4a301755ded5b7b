"""Claims of networks that are not there."""

from labfleet_api.core.claims import ORPHAN_LIFE_S, Orphans
from labfleet_proto.ids import NetworkId
from labfleet_proto.networks import NetworkNameRecord, SubnetClaim

LOST, KEPT = NetworkId("a" * 64), NetworkId("b" * 64)
NAMES = {"t.lost": NetworkNameRecord(id=LOST), "t.kept": NetworkNameRecord(id=KEPT)}
SUBNETS = {"vni.1": SubnetClaim(network=LOST), "vni.2": SubnetClaim(network=KEPT)}


def test_claims_without_a_network_are_due_after_a_while() -> None:
    orphans = Orphans()
    assert list(orphans.due(NAMES, SUBNETS, {KEPT}, 100.0)) == []
    assert list(orphans.due(NAMES, SUBNETS, {KEPT}, 99.9 + ORPHAN_LIFE_S)) == []
    assert set(orphans.due(NAMES, SUBNETS, {KEPT}, 100.0 + ORPHAN_LIFE_S)) == {
        ("t.lost", LOST),
        ("vni.1", LOST),
    }


def test_a_network_that_comes_in_time_keeps_its_claims() -> None:
    orphans = Orphans()
    assert list(orphans.due(NAMES, SUBNETS, {KEPT}, 0.0)) == []
    assert list(orphans.due(NAMES, SUBNETS, {KEPT, LOST}, 10.0)) == []
    assert list(orphans.due(NAMES, SUBNETS, {KEPT}, 1.0 + ORPHAN_LIFE_S)) == []


def test_a_name_claimed_anew_counts_from_its_own_beginning() -> None:
    orphans = Orphans()
    assert list(orphans.due(NAMES, {}, {KEPT}, 0.0)) == []
    other = {"t.lost": NetworkNameRecord(id=NetworkId("c" * 64))}
    assert list(orphans.due(other, {}, {KEPT}, 1.0 + ORPHAN_LIFE_S)) == []
