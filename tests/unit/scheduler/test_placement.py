"""Placement: filters, scores, and the sentence for every outcome."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import container_id

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import HostId
from labfleet_proto.resources import Resources
from labfleet_scheduler.core.placement import (
    Constraint,
    HostSnapshot,
    Placed,
    Request,
    Unplaceable,
    human,
    obstacle,
    parse_constraint,
    place,
)

GIB = 1 << 30
CAPACITY = Resources(memory_bytes=8 * GIB, cpu_millis=8000, pids=4096, containers=32)
NEED = Resources(memory_bytes=GIB, cpu_millis=1000, pids=64, containers=1)


def host(name: str, used: Resources | None = None, **fields: object) -> HostSnapshot:
    whole = HostSnapshot(
        id=HostId(name), capacity=CAPACITY, free=CAPACITY - (used or Resources()), labels={}
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


def request(number: int = 1, **fields: object) -> Request:
    return replace(Request(container_id(number), NEED), **fields)  # type: ignore[arg-type]


def best(outcome: Placed | Unplaceable) -> str:
    assert isinstance(outcome, Placed)
    return outcome.order[0]


def explanation(outcome: Placed | Unplaceable) -> str:
    assert isinstance(outcome, Unplaceable)
    return outcome.explanation


EMPTY, HALF, FULL = host("empty"), host("half", NEED + NEED), host("full", CAPACITY)


# -- scores


def test_spread_takes_the_least_loaded_host() -> None:
    assert best(place(request(), [HALF, EMPTY, FULL])) == "empty"


def test_pack_takes_the_fullest_host_that_fits() -> None:
    assert best(place(request(), [EMPTY, HALF, FULL], "pack")) == "half"


def test_the_scarcest_resource_is_the_load() -> None:
    much_memory = host("memory", Resources(memory_bytes=6 * GIB))
    some_of_both = host("both", Resources(memory_bytes=4 * GIB, cpu_millis=4000))
    assert best(place(request(), [much_memory, some_of_both])) == "both"


def test_of_equally_loaded_hosts_the_one_with_fewer_containers_is_taken() -> None:
    crowded = host("a", Resources(containers=3))
    assert best(place(request(), [crowded, host("b", Resources(containers=2))])) == "b"


def test_all_that_fit_follow_in_order() -> None:
    outcome = place(request(), [HALF, FULL, EMPTY])
    assert isinstance(outcome, Placed)
    assert outcome.order == ("empty", "half")


def test_equal_hosts_share_the_work() -> None:
    hosts = [host(f"h{number}") for number in range(3)]
    chosen = [best(place(request(number), hosts)) for number in range(90)]
    assert all(chosen.count(each.id) >= 15 for each in hosts)


def test_the_order_in_which_hosts_are_listed_changes_nothing() -> None:
    hosts = [host(f"h{number}") for number in range(5)]
    assert place(request(), hosts) == place(request(), hosts[::-1])


def test_the_choice_is_explained() -> None:
    outcome = place(request(), [EMPTY, HALF, FULL])
    assert isinstance(outcome, Placed)
    assert outcome.reason == (
        "spread: empty at 12% load, least of 2 that fit "
        "(full: too little memory and cpu and pids and container slots)"
    )


# -- bytes of the image that are missing


def test_among_equals_the_host_that_has_the_image_is_taken() -> None:
    hosts = [host(f"h{number}", missing_bytes=1000) for number in range(5)]
    hosts.append(host("has", missing_bytes=0))
    for number in range(20):
        assert best(place(request(number), hosts)) == "has"
        assert best(place(request(number), hosts, "pack")) == "has"


def test_a_gib_to_fetch_counts_as_a_tenth_of_load() -> None:
    lacks = host("lacks", missing_bytes=GIB)
    a_little = host("little", Resources(memory_bytes=7 * GIB // 10))  # 8.75 %
    more = host("more", NEED)  # 12.5 %
    assert best(place(request(), [lacks, a_little])) == "little"
    assert best(place(request(), [lacks, more])) == "lacks"


def test_a_huge_image_counts_as_a_fifth_of_load_at_most() -> None:
    lacks = host("lacks", missing_bytes=50 * GIB)
    assert best(place(request(), [lacks, HALF])) == "lacks"
    assert best(place(request(), [lacks, host("busy", NEED)])) == "busy"


def test_the_image_never_makes_an_unfit_host_fit() -> None:
    assert best(place(request(), [host("lacks", missing_bytes=GIB), FULL])) == "lacks"


def test_a_choice_for_the_image_is_explained() -> None:
    hosts = [host("has", NEED), host("lacks", missing_bytes=2 * GIB)]
    outcome = place(request(), hosts)
    assert isinstance(outcome, Placed)
    assert outcome.reason == (
        "spread: has at 25% load with 0 B of the image to fetch, best of 2 that fit"
    )


# -- filters


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (host("h", is_alive=False), "lost"),
        (host("h", is_drained=True), "drained"),
        (host("h", Resources(memory_bytes=8 * GIB)), "too little memory"),
        (host("h", Resources(cpu_millis=7001)), "too little cpu"),
        (host("h", Resources(pids=4096, containers=32)), "too little pids and container slots"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unfit_host_says_why(unfit: HostSnapshot, why: str) -> None:
    assert obstacle(request(), unfit) == why


@pytest.mark.parametrize(
    ("text", "labels", "is_fit"),
    [
        ("gpu==yes", {"gpu": "yes"}, True),
        ("gpu==yes", {"gpu": "no"}, False),
        ("gpu==yes", {}, False),
        ("gpu!=yes", {"gpu": "yes"}, False),
        ("gpu!=yes", {"gpu": "no"}, True),
        ("gpu!=yes", {}, True),
        ("host==h", {"host": "other"}, True),
        ("host==other", {"host": "other"}, False),
        ("host!=h", {}, False),
    ],
)
def test_a_constraint_filters(text: str, labels: dict[str, str], *, is_fit: bool) -> None:
    wish = request(constraints=(parse_constraint(text),))
    assert obstacle(wish, host("h", labels=labels)) == (None if is_fit else f"constraint {text}")


def test_all_constraints_must_hold() -> None:
    wish = request(constraints=(Constraint("a", "1", True), Constraint("b", "1", True)))
    assert obstacle(wish, host("h", labels={"a": "1"})) == "constraint b==1"


def test_a_container_follows_its_volume_home() -> None:
    wish = request(homes=frozenset({HostId("half")}))
    assert best(place(wish, [EMPTY, HALF])) == "half"


def test_volumes_with_two_homes_fit_nowhere() -> None:
    wish = request(homes=frozenset({HostId("empty"), HostId("half")}))
    why = explanation(place(wish, [EMPTY, HALF]))
    assert why == "no host fits: 2 hosts: volume lives on empty, half"


def test_a_taken_port_is_named() -> None:
    wish = request(ports=frozenset({("tcp", 80), ("udp", 53)}))
    busy = host("h", taken_ports=frozenset({("tcp", 80), ("tcp", 443)}))
    assert obstacle(wish, busy) == "port 80/tcp in use"


def test_the_same_port_of_another_protocol_is_free() -> None:
    wish = request(ports=frozenset({("udp", 80)}))
    assert obstacle(wish, host("h", taken_ports=frozenset({("tcp", 80)}))) is None


# -- constraints as text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rack==r1", Constraint("rack", "r1", True)),
        ("rack!=r1", Constraint("rack", "r1", False)),
        (" rack == r1 ", Constraint("rack", "r1", True)),
        ("host==h1", Constraint("host", "h1", True)),
    ],
)
def test_a_constraint_is_parsed(text: str, wanted: Constraint) -> None:
    assert parse_constraint(text) == wanted


@pytest.mark.parametrize("text", ["", "rack", "rack=r1", "==r1", "rack==", " != ", "rack<r1"])
def test_a_malformed_constraint_is_shown_the_forms(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="label==value, label!=value or host==name"):
        parse_constraint(text)


# -- refusals


def test_a_fleet_without_hosts_says_so() -> None:
    assert explanation(place(request(), [])) == "no host fits: the fleet has no hosts"


def test_a_full_fleet_counts_its_hosts_by_reason() -> None:
    lacks = Resources(memory_bytes=8 * GIB - (512 << 20))
    hosts = [host("a", lacks), host("b", lacks), host("c", is_drained=True)]
    assert explanation(place(request(), hosts)) == (
        "no host fits: 2 hosts: too little memory (needs 1 GiB memory, most free 512 MiB); "
        "1 host: drained"
    )


def test_too_little_cpu_is_told_in_cpus() -> None:
    why = explanation(place(request(), [host("a", Resources(cpu_millis=7500))]))
    assert why == "no host fits: 1 host: too little cpu (needs 1 cpus, most free 0.5)"


def test_room_on_a_host_that_falls_out_otherwise_is_no_room() -> None:
    drained = host("big", is_drained=True)
    full = host("full", Resources(memory_bytes=8 * GIB - (256 << 20)))
    assert "most free 256 MiB" in explanation(place(request(), [drained, full]))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (-5, "0 B"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1020 << 20, "1020 MiB"),
        (GIB, "1 GiB"),
        (2000 * GIB, "2000 GiB"),
    ],
)
def test_a_size_is_written_for_people(size: int, text: str) -> None:
    assert human(size) == text


# -- properties

few = st.integers(min_value=0, max_value=3)
vectors = st.builds(
    Resources,
    memory_bytes=few.map(lambda number: number * GIB),
    cpu_millis=few.map(lambda number: number * 1000),
    pids=few,
    containers=few,
)
one_port = st.sampled_from([("tcp", 80), ("udp", 80), ("tcp", 81)])
port_sets = st.frozensets(one_port, max_size=2)
constraints = st.builds(
    Constraint, st.sampled_from(["host", "rack"]), st.sampled_from(["h1", "r1"]), st.booleans()
)
fleets = st.lists(
    st.builds(
        HostSnapshot,
        id=st.sampled_from([HostId(f"h{number}") for number in range(6)]),
        capacity=vectors,
        free=vectors,
        labels=st.sampled_from([{}, {"rack": "r1"}, {"rack": "r2"}]),
        is_alive=st.booleans(),
        is_drained=st.booleans(),
        taken_ports=port_sets,
        missing_bytes=few.map(lambda number: number * GIB),
    ),
    max_size=6,
    unique_by=lambda each: each.id,
)
wishes = st.builds(
    Request,
    container=st.just(container_id(1)),
    resources=vectors,
    constraints=st.lists(constraints, max_size=2).map(tuple),
    ports=port_sets,
    homes=st.frozensets(st.sampled_from([HostId("h1"), HostId("h2")]), max_size=1),
)
scores = st.sampled_from(["spread", "pack"])


@given(wishes, fleets, scores)
def test_exactly_the_hosts_without_obstacle_are_offered(
    wish: Request, hosts: list[HostSnapshot], score: str
) -> None:
    outcome = place(wish, hosts, score)  # type: ignore[arg-type]
    fit = {each.id for each in hosts if obstacle(wish, each) is None}
    assert (set(outcome.order) if isinstance(outcome, Placed) else set()) == fit


@given(wishes, fleets, scores)
def test_the_same_question_has_the_same_answer(
    wish: Request, hosts: list[HostSnapshot], score: str
) -> None:
    assert place(wish, hosts, score) == place(wish, list(reversed(hosts)), score)  # type: ignore[arg-type]


@given(wishes, fleets)
def test_a_refusal_accounts_for_every_host(wish: Request, hosts: list[HostSnapshot]) -> None:
    outcome = place(wish, hosts)
    if isinstance(outcome, Unplaceable) and hosts:
        counts = re.findall(r"(\d+) hosts?: ", outcome.explanation)
        assert sum(int(count) for count in counts) == len(hosts)
