"""Host ports from the fleet's range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.containers import PortBinding
from labfleet_proto.errors import NoRoomError
from labfleet_scheduler.core.ports import fill

FIRST, LAST = 40_000, 40_009

bindings = st.lists(
    st.builds(
        PortBinding,
        container_port=st.just(80),
        protocol=st.sampled_from(["tcp", "udp"]),
        host_port=st.none() | st.integers(min_value=FIRST, max_value=LAST),
    ),
    max_size=4,
).map(tuple)
taken_ports = st.sets(
    st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(min_value=FIRST, max_value=LAST)),
    max_size=5,
)


def wish(*, host_port: int | None = None, protocol: str = "tcp") -> PortBinding:
    return PortBinding(container_port=80, protocol=protocol, host_port=host_port)


def given_out(filled: tuple[PortBinding, ...]) -> list[int | None]:
    return [each.host_port for each in filled]


def test_the_lowest_free_port_is_given() -> None:
    taken = {("tcp", FIRST), ("tcp", FIRST + 2)}
    assert given_out(fill((wish(),), taken, FIRST, LAST)) == [FIRST + 1]


def test_a_port_that_was_asked_for_stays() -> None:
    assert given_out(fill((wish(host_port=8080),), set(), FIRST, LAST)) == [8080]


def test_a_port_asked_for_later_in_the_list_is_not_given_away() -> None:
    filled = fill((wish(), wish(host_port=FIRST)), set(), FIRST, LAST)
    assert given_out(filled) == [FIRST + 1, FIRST]


def test_a_port_of_another_protocol_is_not_taken() -> None:
    assert given_out(fill((wish(protocol="udp"),), {("tcp", FIRST)}, FIRST, LAST)) == [FIRST]


def test_the_last_port_of_the_range_is_given_too() -> None:
    assert given_out(fill((wish(),), set(), LAST, LAST)) == [LAST]


def test_a_used_up_range_names_itself() -> None:
    with pytest.raises(NoRoomError, match=f"no host port is left in {FIRST}-{FIRST}"):
        fill((wish(),), {("tcp", FIRST)}, FIRST, FIRST)


@given(bindings, taken_ports)
def test_no_port_is_given_twice(
    wanted: tuple[PortBinding, ...], taken: set[tuple[str, int]]
) -> None:
    filled = fill(wanted, taken, FIRST, LAST)
    chosen = [
        (after.protocol, after.host_port)
        for before, after in zip(wanted, filled, strict=True)
        if before.host_port is None
    ]
    others = taken | {(each.protocol, each.host_port) for each in wanted}
    assert len(set(chosen)) == len(chosen)
    assert not set(chosen) & others


@given(bindings)
def test_only_the_host_port_is_filled_in(wanted: tuple[PortBinding, ...]) -> None:
    filled = fill(wanted, set(), FIRST, LAST)
    assert all(
        after.model_copy(update={"host_port": before.host_port}) == before
        for before, after in zip(wanted, filled, strict=True)
    )
