"""Capacity of a host: what its containers use, and holds for those on their way."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import (
    container_id,
    container_record,
    container_spec,
    limits,
    observation,
)

from labfleet_proto.containers import Goal, State
from labfleet_proto.ids import ContainerId
from labfleet_proto.resources import Resources
from labfleet_runtime_agent.core.admission import HOLD_LIFE_S, Holds, used

ONE, TWO = container_id(1), container_id(2)
FREE = Resources(memory_bytes=100, cpu_millis=100, pids=100, containers=10)


def need(memory_bytes: int) -> Resources:
    return Resources(memory_bytes=memory_bytes, containers=1)


# -- what is used


def test_use_is_the_sum_of_those_that_take_room() -> None:
    running = container_record(1, goal=Goal.RUNNING, attempt=1)
    ended = container_record(2, goal=Goal.RUNNING, attempt=1)
    created = container_record(
        3, spec=container_spec(limits=limits(memory_bytes=7, cpu_millis=8, pids=9))
    )
    seen = {ONE: observation(State.RUNNING), TWO: observation(State.EXITED, number=2)}
    total = used([running, ended, created], seen)
    assert total == running.spec.resources() + created.spec.resources()


def test_an_empty_host_uses_nothing() -> None:
    assert used([], {}) == Resources()


# -- holds


def test_a_hold_is_taken_from_what_is_free() -> None:
    answer = Holds().ask(ONE, need(60), FREE, now_s=0)
    assert answer.is_granted
    assert answer.free == FREE - need(60)


def test_a_second_hold_sees_the_first() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    answer = holds.ask(TWO, need(60), FREE, now_s=0)
    assert (answer.is_granted, answer.lacking) == (False, ("memory",))


def test_a_refusal_says_what_is_left() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    assert holds.ask(TWO, need(60), FREE, now_s=0).free.memory_bytes == 40


def test_a_refusal_holds_nothing() -> None:
    holds = Holds()
    holds.ask(ONE, need(101), FREE, now_s=0)
    assert holds.total() == Resources()


def test_asking_again_does_not_hold_twice() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    assert holds.ask(ONE, need(60), FREE, now_s=0).is_granted
    assert holds.total() == need(60)


def test_asking_again_renews() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    holds.ask(ONE, need(60), FREE, now_s=HOLD_LIFE_S - 1)
    assert not holds.ask(TWO, need(60), FREE, now_s=HOLD_LIFE_S + 1).is_granted


def test_a_hold_lapses() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    assert holds.ask(TWO, need(60), FREE, now_s=HOLD_LIFE_S).is_granted


def test_a_hold_lapses_without_another_question() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    holds.lapse(now_s=HOLD_LIFE_S)
    assert holds.total() == Resources()


def test_a_hold_lives_until_its_time() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    holds.lapse(now_s=HOLD_LIFE_S - 1)
    assert holds.total() == need(60)


def test_a_container_that_arrived_needs_no_hold() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    holds.arrived(ONE)
    assert holds.total() == Resources()


def test_an_arrival_without_hold_is_nothing() -> None:
    holds = Holds()
    holds.ask(ONE, need(60), FREE, now_s=0)
    holds.arrived(TWO)
    assert holds.total() == need(60)


@dataclass(frozen=True)
class Ask:
    container: ContainerId
    memory_bytes: int
    after_s: float


events = st.one_of(
    st.builds(
        Ask,
        st.integers(min_value=1, max_value=4).map(container_id),
        st.integers(min_value=0, max_value=120),
        st.sampled_from([0.0, 1.0, HOLD_LIFE_S / 2, HOLD_LIFE_S]),
    ),
    st.integers(min_value=1, max_value=4).map(container_id),
)


@given(st.lists(events, max_size=20))
def test_what_was_granted_never_exceeds_what_is_free(happened: list[Ask | ContainerId]) -> None:
    holds, now_s = Holds(), 0.0
    for event in happened:
        if isinstance(event, Ask):
            now_s += event.after_s
            holds.ask(event.container, need(event.memory_bytes), FREE, now_s)
        else:
            holds.arrived(event)
        assert holds.total().memory_bytes <= FREE.memory_bytes


@given(st.lists(events, max_size=20), st.integers(min_value=0, max_value=100))
def test_after_a_pause_nothing_is_held_any_more(
    happened: list[Ask | ContainerId], memory_bytes: int
) -> None:
    holds, now_s = Holds(), 0.0
    for event in happened:
        if isinstance(event, Ask):
            now_s += event.after_s
            holds.ask(event.container, need(event.memory_bytes), FREE, now_s)
    holds.ask(container_id(9), need(memory_bytes), FREE, now_s + HOLD_LIFE_S)
    assert holds.total() == need(memory_bytes)
