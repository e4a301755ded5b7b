"""The supervisor with real processes: what ends is run again, and all end when told."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from labfleet_cli import supervisor
from labfleet_cli.fleet_plan import Child
from labfleet_cli.supervisor import Supervisor, load_children

LIMIT_S = 15


def child(name: str, script: str, **env: str) -> Child:
    return Child(name, ("sh", "-c", script), env)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def status(directory: Path) -> dict[str, dict[str, Any]]:
    try:
        rows = json.loads((directory / "services.json").read_text())
    except FileNotFoundError:
        return {}
    return {row["name"]: row for row in rows}


@asynccontextmanager
async def running(directory: Path, *children: Child) -> AsyncIterator[Supervisor]:
    fleet = Supervisor(list(children), directory, directory)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(fleet.run())
        try:
            yield fleet
        finally:
            fleet._stopping.set()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_S", 0.01)


async def test_a_child_that_ends_is_run_again(tmp_path: Path) -> None:
    async with running(tmp_path, child("dying", f"echo run >> {tmp_path}/runs; exit 3")):
        runs = tmp_path / "runs"
        await until(lambda: status(tmp_path).get("dying", {}).get("restarts", 0) >= 2)
        await until(lambda: runs.read_text().count("run") >= 3)
        assert status(tmp_path)["dying"]["last_exit"] == 3  # the end of the block kills one


async def test_a_child_that_is_killed_is_run_again(tmp_path: Path) -> None:
    async with running(tmp_path, child("steady", "exec sleep 60")):
        await until(lambda: status(tmp_path).get("steady", {}).get("pid", 0) > 0)
        first = status(tmp_path)["steady"]["pid"]
        os.kill(first, 9)
        await until(lambda: status(tmp_path)["steady"]["pid"] not in (0, first))
        assert status(tmp_path)["steady"]["restarts"] == 1
        assert status(tmp_path)["steady"]["last_exit"] == -9


async def test_a_dying_child_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with running(tmp_path, child("steady", "exec sleep 60"), child("dying", "exit 1")):
        await until(lambda: status(tmp_path).get("dying", {}).get("restarts", 0) >= 2)
        assert status(tmp_path)["steady"]["restarts"] == 0


async def test_an_end_does_not_wait_for_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE_S", 60.0)
    async with running(tmp_path, child("dying", "exit 1")):
        await until(lambda: status(tmp_path).get("dying", {}).get("last_exit") == 1)
        assert status(tmp_path)["dying"]["restarts"] == 0
    assert status(tmp_path)["dying"]["pid"] == 0


async def test_output_goes_to_a_log_of_the_childs_name(tmp_path: Path) -> None:
    async with running(
        tmp_path, child("talks", 'echo "$WORD"; echo err >&2; exec sleep 60', WORD="hi")
    ):
        await until((tmp_path / "talks.log").exists)
        await until(lambda: "err" in (tmp_path / "talks.log").read_text())
    assert (tmp_path / "talks.log").read_text() == "hi\nerr\n"


async def test_a_long_log_is_set_aside_at_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_MOST_LOG_BYTES", 10)
    (tmp_path / "talks.log").write_text("x" * 11)
    async with running(tmp_path, child("talks", "echo new; exec sleep 60")):
        await until((tmp_path / "talks.log.1").exists)
        await until((tmp_path / "talks.log").exists)
        await until(lambda: (tmp_path / "talks.log").read_text() == "new\n")


async def test_the_first_child_ends_last(tmp_path: Path) -> None:
    def says(name: str) -> Child:
        script = f"trap 'echo {name} >> {tmp_path}/ends; exit 0' TERM; touch {tmp_path}/{name}; "
        return child(name, script + "while :; do sleep 0.01; done")

    async with running(tmp_path, says("bus"), says("one"), says("two")):
        await until(lambda: all((tmp_path / name).exists() for name in ("bus", "one", "two")))
    ends = (tmp_path / "ends").read_text().split()
    assert sorted(ends[:2]) == ["one", "two"]
    assert ends[2:] == ["bus"]


async def test_a_child_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_END_LIMIT_S", 0.1)
    script = f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.01; done"
    async with running(tmp_path, child("bus", "exec sleep 60"), child("stubborn", script)):
        await until((tmp_path / "up").exists)
        pid = status(tmp_path)["stubborn"]["pid"]
    async with asyncio.timeout(LIMIT_S):
        await until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_plan_file_holds_the_children(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(
        json.dumps([{"name": "a", "argv": ["sh"], "env": {"K": "v"}, "namespace": "ns"}])
    )
    assert load_children(plan) == [Child("a", ("sh",), {"K": "v"}, "ns")]
