"""From which hosts a layer is read."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.layers import BlobState, LayerCopy
from labfleet_runtime_agent.core.layer_sources import BRANCHES, Claim, sources

DIGEST = Digest(f"sha256:{'a' * 64}")


def claim(host: str, revision: int, blob: BlobState = BlobState.PARTIAL) -> Claim:
    return Claim(LayerCopy(host=HostId(host), digest=DIGEST, blob=blob), revision)


def of(me: str, *claims: Claim) -> tuple[str, ...]:
    return sources(HostId(me), DIGEST, claims)


def test_the_first_of_all_asks_the_store() -> None:
    assert of("a", claim("a", 1)) == ()
    assert of("a", claim("b", 2), claim("a", 1)) == ()


def test_the_next_reads_from_the_first_while_it_still_fetches() -> None:
    assert of("b", claim("a", 1), claim("b", 2)) == ("a",)


def test_who_has_all_of_it_is_asked_whenever_it_began() -> None:
    assert of("b", claim("b", 2), claim("a", 9, BlobState.WHOLE)) == ("a",)


def test_a_host_without_the_blob_is_not_asked() -> None:
    assert of("b", claim("a", 1, BlobState.NONE), claim("b", 2)) == ()


def test_who_keeps_nothing_itself_reads_only_from_those_who_have_all() -> None:
    assert of("b", claim("a", 1), claim("c", 2, BlobState.WHOLE)) == ("c",)


def test_a_class_makes_a_tree() -> None:
    claims = [claim(f"h{number:02}", number) for number in range(40)]
    parents = [of(f"h{number:02}", *claims)[0] for number in range(1, 40)]
    assert max(parents.count(each) for each in parents) == BRANCHES
    depth = {"h00": 0}
    for number, parent in enumerate(parents, 1):
        depth[f"h{number:02}"] = depth[parent] + 1
    assert max(depth.values()) == 5


def test_latecomers_are_spread_over_those_who_have_it() -> None:
    claims = [claim(f"w{number}", number, BlobState.WHOLE) for number in range(8)]
    claims += [claim(f"n{number}", 100 + number) for number in range(8)]
    first = [of(f"n{number}", *claims)[0] for number in range(8)]
    assert max(first.count(each) for each in first) <= BRANCHES


def test_children_of_a_lost_host_go_to_different_ones() -> None:
    claims = [claim(f"w{number}", number, BlobState.WHOLE) for number in range(9)]
    seconds = {of(f"n{number}", *claims, claim(f"n{number}", 50))[1] for number in range(20)}
    assert len(seconds) > 4


states = st.sampled_from(list(BlobState))


@given(st.lists(st.tuples(states, st.booleans()), min_size=1, max_size=12), st.randoms())
def test_nobody_waits_in_a_circle(hosts: list[tuple[BlobState, bool]], chance: Random) -> None:
    revisions = list(range(1, len(hosts) + 1))
    chance.shuffle(revisions)
    claims = [
        claim(f"h{number}", revision, state)
        for number, ((state, _), revision) in enumerate(zip(hosts, revisions, strict=True))
    ]
    known = {each.copy.host: each for each in claims}
    for each in claims:
        found = of(each.copy.host, *claims)
        assert len(set(found)) == len(found)
        for other in found:
            whole = known[HostId(other)].copy.blob is BlobState.WHOLE
            assert whole or known[HostId(other)].revision < each.revision
