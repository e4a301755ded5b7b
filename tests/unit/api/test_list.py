"""`GET /containers/json` of a thousand containers: from the mirrors alone, and quickly."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from tests.unit.proto.records import HOST, TENANT, container_record, container_spec, observation

from labfleet_api.service.application import routes
from labfleet_api.service.fleet import Fleet, Memory
from labfleet_api.settings import Settings
from labfleet_chassis.caller import acting_for
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.store import Entry
from labfleet_proto.buckets import container_key, observed_key
from labfleet_proto.containers import ContainerRecord, Goal, State

COUNT = 1000
LIMIT_S = 1.0
"""Some 0.1 s on an idle core; a job to each host would not fit in it either."""


class _Clock:
    def now_ns(self) -> int:
        return 1_700_000_000_000_000_000


class _SilentBus:
    """Any use of the bus is the failure of the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the bus was asked: {name}")


def _mirror(values: dict[str, Any]) -> Mirror[Any]:
    mirror: Mirror[Any] = Mirror(cast("Any", _SilentBus()), cast("Any", None))
    mirror.entries.update(
        {key: Entry(key, value, number) for number, (key, value) in enumerate(values.items())}
    )
    return mirror


def _record(number: int) -> ContainerRecord:
    spec = container_spec(labels={"number": str(number)})
    return container_record(number, goal=Goal.RUNNING, attempt=1, created_at_ns=number, spec=spec)


@pytest.fixture
def fleet() -> Fleet:
    records = {container_key(TENANT, each.id): each for each in map(_record, range(COUNT))}
    seen = {
        observed_key(HOST, each.id): observation(
            State.RUNNING if number % 2 else State.EXITED,
            number=number,
            started_at_ns=1,
            finished_at_ns=2,
            exit_code=number % 3,
        )
        for number, each in enumerate(records.values())
    }
    empty = [_mirror({}) for _ in range(5)]
    memory = Memory(_mirror(records), _mirror(seen), *empty, *[cast("Any", None)] * 4)
    chassis = SimpleNamespace(clock=_Clock(), bus=_SilentBus(), log=None)
    settings = Settings.model_construct(data_key=SimpleNamespace(get_secret_value=lambda: "00"))
    return Fleet(cast("Any", chassis), memory, settings)


async def _get(fleet: Fleet, query: str) -> list[dict[str, Any]]:
    with acting_for(TENANT):
        transport = httpx.ASGITransport(routes(fleet))
        async with httpx.AsyncClient(transport=transport, base_url="http://fleet") as client:
            answer = await client.get(f"/containers/json?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def test_a_thousand_containers_are_listed_without_the_bus(fleet: Fleet) -> None:
    asyncio.run(_get(fleet, "all=1"))
    began_s = time.perf_counter()
    rows = asyncio.run(_get(fleet, "all=1"))
    took_s = time.perf_counter() - began_s
    assert len(rows) == COUNT
    assert rows[0]["Labels"]["number"] == str(COUNT - 1)
    assert took_s < LIMIT_S


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 500),
        ("limit=7", 7),
        ('filters={"status":["exited"]}', 500),
        ('all=1&filters={"exited":["2"]}', 167),
        ('all=1&filters={"label":["number=5"]}', 1),
        ('all=1&filters={"before":["c10"]}', 10),
        ('all=1&filters={"since":["c10"]}', 989),
        ('all=1&filters={"is-task":["false"]}', 1000),
        ('all=1&filters={"is-task":["true"]}', 0),
        ('all=1&filters={"health":["none"]}', 1000),
        ('all=1&filters={"publish":["80"]}', 0),
    ],
)
def test_filters_of_the_list(fleet: Fleet, query: str, count: int) -> None:
    assert len(asyncio.run(_get(fleet, query))) == count


@pytest.mark.parametrize(
    "text",
    ['{"status":["odd"]}', '{"health":["odd"]}', '{"exited":["x"]}', '{"is-task":["x"]}',
     '{"publish":["x"]}', '{"expose":["0"]}', '{"odd":["x"]}'],
)  # fmt: skip
def test_a_value_that_a_filter_does_not_have_is_a_400(fleet: Fleet, text: str) -> None:
    with pytest.raises(AssertionError, match=r"filter|port"):
        asyncio.run(_get(fleet, f"filters={text}"))
