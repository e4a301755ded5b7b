"""Jobs are only a fast path: the bus loses them, and everything comes to the same end.

The real nats-server leads the subjects of jobs to a black hole, where the test takes them and says
nothing: to the sender a lost message looks just like that.
"""

import asyncio
import contextlib
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator

import nats
import pytest
from tests.farm.fleet import Fleet, running_fleet, until, until_clean

from labfleet_proto import subjects
from labfleet_proto.ids import HostId
from labfleet_proto.images import RESOLVE_IMAGE
from labfleet_proto.jobs import JobKind
from labfleet_proto.networks import (
    ALLOCATE_INTERFACE,
    ENTRY,
    PUBLISH_PORTS,
    RELEASE_INTERFACE,
    UNPUBLISH_PORTS,
)
from labfleet_proto.placement import HOLD, PLACE
from labfleet_proto.runtime import CREATE_EXEC, INSPECT_EXEC, RECONCILE

INTENTS = (RECONCILE, RELEASE_INTERFACE, PUBLISH_PORTS, UNPUBLISH_PORTS)
"""Jobs that say what a record says too."""
QUESTIONS = (RESOLVE_IMAGE, PLACE, HOLD, ALLOCATE_INTERFACE, CREATE_EXEC, INSPECT_EXEC)
"""Jobs whose answer is needed to go on."""
HOLE = "black.hole"


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with (
        running_fleet(tmp_path_factory.mktemp("docker"), hosts=2, suffix="-lossy") as fleet,
        _black_hole(fleet),
    ):
        yield fleet


@contextlib.contextmanager
def _black_hole(fleet: Fleet) -> Iterator[None]:
    """Take what is led to the hole; with nobody there a sender would be told so at once."""
    ready, over = threading.Event(), threading.Event()

    async def swallow() -> None:
        client = await nats.connect(fleet.plan.nats_url, token=fleet.plan.choices.nats_token)
        await client.subscribe(HOLE)
        await client.flush()
        ready.set()
        await asyncio.to_thread(over.wait)
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(swallow()))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        over.set()
        thread.join()


def _lose(fleet: Fleet, kinds: tuple[JobKind, ...], percent: int) -> None:
    """Let the bus lose that share of the messages of these kinds."""
    places = [host.id for host in fleet.plan.hosts] + [ENTRY, None]
    lines = []
    for kind in kinds:
        for place in places:
            subject = subjects.job(kind.service, HostId(place) if place else None, kind.name)
            ways = [f"{{ destination: {HOLE}, weight: {percent}% }}"]
            if percent < 100:
                ways.append(f"{{ destination: {subject}, weight: {100 - percent}% }}")
            lines.append(f"  {subject}: [ {', '.join(ways)} ]")
    mappings = "mappings {\n" + "\n".join(lines) + "\n}\n"
    loaded = _load_time(fleet)
    (fleet.plan.state_dir / "nats.conf").write_text(fleet.plan.nats_config() + mappings)
    os.kill(fleet.service_pid("nats"), signal.SIGHUP)
    until(lambda: _load_time(fleet) != loaded)


def _load_time(fleet: Fleet) -> str:
    """When nats-server last read its configuration."""
    url = f"http://127.0.0.1:{fleet.plan.choices.port_base + 1}/varz"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)["config_load_time"]


def _live_through_it(fleet: Fleet) -> None:
    """A container's whole life, as a user sees it."""
    try:
        fleet.docker("network", "create", "class")
        fleet.docker("run", "-d", "--name", "web", "--network", "class", "-p", "80", "busybox", "sh",
                     "-c", "mkdir /www; echo here > /www/index.html; httpd -f -h /www")  # fmt: skip
        port = fleet.docker("port", "web", "80").out.rpartition(":")[2]
        until(lambda: _fetch(port) == "here\n", 20)
        done = fleet.docker("run", "--rm", "--network", "class", "busybox", "sh", "-c",
                            "wget -qO- http://web; exit 3", code=3)  # fmt: skip
        assert done.out == "here"
        assert "not found" in fleet.docker("run", "busybox", "nosuch", code=127).err
        assert fleet.docker("exec", "web", "echo", "still").out == "still"
        fleet.docker("stop", "-t", "0", "web")
        fleet.docker("start", "web")
        assert fleet.inspect("web")["State"]["Running"]
        fleet.docker("rm", "-f", "web")
        until(lambda: _fetch(port) == "", 20)
    finally:
        fleet.clean()
    until_clean(fleet)


def _fetch(port: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=2) as page:
            return page.read().decode()
    except OSError:
        return ""


def test_every_job_that_carries_an_intent_is_lost(lossy: Fleet) -> None:
    _lose(lossy, INTENTS, 100)
    _live_through_it(lossy)


def test_a_third_of_all_messages_are_lost(lossy: Fleet) -> None:
    _lose(lossy, (*INTENTS, *QUESTIONS), 33)
    _live_through_it(lossy)
