"""A class works while services are killed: what was acknowledged is true, what runs runs on."""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, until_clean
from tests.farm.traces import until_traceless

COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
VICTIMS = (
    "api",
    "scheduler",
    "image-store",
    "network-entry",
    "network-host1",
    "network-host2",
    "network-host3",
    "runtime-agent-host1",
    "runtime-agent-host2",
    "runtime-agent-host3",
    "nats",
)
STUDENTS = 4
MOST_OWN = 4
CLIENT_LIMIT_S = 100
API_GONE = 255
"""What the docker command line says, without a word, when the api is gone at the end of an exec."""


@dataclass
class Own:
    """One container, as its owner knows it; None where no answer came."""

    name: str
    exists: bool | None = None
    runs: bool | None = None
    is_untouched: bool = True
    """Nobody has stopped or started it since the first start was acknowledged."""
    facts: tuple[int, str] | None = None
    """Pid and StartedAt since the last acknowledged start."""

    def doubt(self) -> None:
        """Something was asked and not answered."""
        self.runs, self.facts, self.is_untouched = None, None, False


@dataclass
class Student:
    """Does things in an order that its seed decides, and notes what was acknowledged."""

    fleet: Fleet
    number: int
    choice: random.Random
    own: list[Own] = field(default_factory=list)
    networks: dict[str, bool | None] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    """What was done, for the report of a failure."""
    lies: list[str] = field(default_factory=list)
    made: int = 0

    def work(self, over: threading.Event) -> None:
        """Work until it is over."""
        steps = {
            self.run: 5,
            self.run_to_the_end: 4,
            self.execute: 5,
            self.stop: 2,
            self.start: 3,
            self.remove: 3,
            self.read_log: 2,
            self.make_network: 1,
            self.drop_network: 1,
        }
        while not over.is_set():
            self.choice.choices(list(steps), list(steps.values()))[0]()

    def _say(self, *words: str) -> tuple[int, str, str]:
        """One docker command; its answer is no verdict yet."""
        began = time.monotonic()
        try:
            done = self.fleet.docker(*words, code=None, timeout_s=CLIENT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.lies.append(f"no answer in {CLIENT_LIMIT_S} s: {' '.join(words)}")
            return -1, "", "timeout"
        self.done.append(
            f"{began:.2f} +{time.monotonic() - began:.2f} {' '.join(words)[:70]} -> {done.code} "
            f"{done.err[-150:]}"
        )
        if done.code != 0 and not done.err and words[0] not in ("run", "exec"):
            self.lies.append(f"failed without a word: {' '.join(words)}")
        return done.code, done.out, done.err

    def _pick(self, *, exists: bool = True, runs: bool | None = None) -> Own | None:
        found = [
            each
            for each in self.own
            if each.exists is exists and (runs is None or each.runs is runs)
        ]
        return self.choice.choice(found) if found else None

    def _learn(self, one: Own) -> None:
        """Pid and start time, if the fleet answers just now."""
        code, out, _ = self._say("inspect", one.name)
        if code == 0:
            state = json.loads(out)[0]["State"]
            if not state["Running"]:
                self.lies.append(f"{one.name} was started and is {state}")
            elif one.facts is None:
                one.facts = state["Pid"], state["StartedAt"]
            elif one.facts != (state["Pid"], state["StartedAt"]):
                self.lies.append(f"{one.name} was {one.facts} and is {state}")

    def run(self) -> None:
        if sum(each.exists is not False for each in self.own) >= MOST_OWN:
            self.remove()
            return
        self.made += 1
        one = Own(f"s{self.number}-{self.made}")
        self.own.append(one)
        words = ["--network", "class"] if self.choice.random() < 0.5 else []
        code, out, _ = self._say(
            "run", "-d", "--name", one.name, *words, "busybox", "sh", "-c", COUNT
        )
        if code == 0 and len(out) == 64:
            one.exists = one.runs = True
            self._learn(one)
        else:
            one.is_untouched = False

    def run_to_the_end(self) -> None:
        wanted = self.choice.randrange(1, 100)
        code, _, err = self._say("run", "--rm", "busybox", "sh", "-c", f"exit {wanted}")
        if code != wanted and not (code in (1, 125) and err):
            self.lies.append(f"run of exit {wanted} ended with {code}: {err}")

    def execute(self) -> None:
        one = self._pick(runs=True)
        if one is None:
            return
        wanted = self.choice.randrange(3, 100)
        code, out, err = self._say("exec", one.name, "sh", "-c", f"echo here; exit {wanted}")
        if code == wanted:
            if out != "here":
                self.lies.append(f"exec in {one.name} ended with {code} and printed {out!r}")
        elif code != API_GONE and (code == 0 or not err):
            self.lies.append(f"exec of exit {wanted} in {one.name} ended with {code}: {err}")
        if "is not running" in err or "No such container" in err:
            self.lies.append(f"{one.name} runs, and exec said: {err}")

    def stop(self) -> None:
        one = self._pick(runs=True)
        if one is None:
            return
        one.doubt()
        code, _, _ = self._say("stop", "-t", "0", one.name)
        if code == 0:
            one.runs = False

    def start(self) -> None:
        one = self._pick(runs=False) or self._pick(runs=None)
        if one is None or one.runs is True:
            return
        one.doubt()
        code, _, err = self._say("start", one.name)
        if code == 0:
            one.runs = True
            self._learn(one)
        if "No such container" in err:
            self.lies.append(f"{one.name} was made, and start said: {err}")

    def remove(self) -> None:
        one = self.choice.choice(self.own) if self.own else None
        if one is None or one.exists is False:
            return
        known, one.exists = one.exists, None
        one.doubt()
        code, _, err = self._say("rm", "-f", one.name)
        if code == 0 and "No such container" not in err:
            one.exists = False
        elif known and "No such container" in err:
            self.lies.append(f"{one.name} was made, and rm said: {err}")

    def read_log(self) -> None:
        one = self._pick(runs=True)
        if one is None:
            return
        code, out, _ = self._say("logs", one.name)
        if code == 0 and one.is_untouched:
            self.lies += [f"{one.name}: {text}" for text in _gaps(out)]

    def make_network(self) -> None:
        name = f"net{self.number}-{len(self.networks)}"
        code, _, _ = self._say("network", "create", name)
        self.networks[name] = True if code == 0 else None

    def drop_network(self) -> None:
        there = [name for name, exists in self.networks.items() if exists is not False]
        if there:
            name = self.choice.choice(there)
            known = self.networks[name]
            self.networks[name] = None
            code, _, err = self._say("network", "rm", name)
            if code == 0:
                self.networks[name] = False
            elif known and "not found" in err:
                self.lies.append(f"network {name} was made, and rm said: {err}")


def _gaps(text: str) -> list[str]:
    """Every number from 0 on, once, in order; the last line may be on its way."""
    lines = text.splitlines()
    wanted = [str(number) for number in range(len(lines))]
    return [] if lines == wanted else [f"log of {len(lines)} lines is not complete: {text[:200]}"]


def _kill_now_and_then(fleet: Fleet, choice: random.Random, over: threading.Event) -> list[str]:
    """Kill -9 a random service every second or two; return whom and when."""
    killed = []
    while not over.wait(choice.uniform(1, 2)):
        name = choice.choice(VICTIMS)
        pid = fleet.service_pid(name)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.append(f"{time.monotonic():.2f} {name}")
    return killed


def _lies_that_stay(fleet: Fleet, students: list[Student]) -> list[str]:
    """What is still not as acknowledged after half a minute without kills."""
    told = [lie for student in students for lie in student.lies]
    end_s = time.monotonic() + 30
    while (found := _check(fleet, students)) and time.monotonic() < end_s:
        time.sleep(0.5)
    return told + found


def _check(fleet: Fleet, students: list[Student]) -> list[str]:
    """Compare what was acknowledged with what is."""
    lies = []
    shown = fleet.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    networks = fleet.docker("network", "ls", "--format", "{{.Name}}").out.split()
    for student in students:
        for one in student.own:
            if one.exists is True and one.name not in shown:
                lies.append(f"{one.name} was made and is not there")
            if one.exists is False and one.name in shown:
                lies.append(f"{one.name} was removed and is there")
            if one.exists is True and one.name in shown:
                lies += _check_state(fleet, one)
        for name, exists in student.networks.items():
            if exists is not None and exists is not (name in networks):
                lies.append(f"network {name}: acknowledged {exists}, is there {name in networks}")
    return lies


def _check_state(fleet: Fleet, one: Own) -> list[str]:  # noqa: PLR0911 - a table of lies
    state = fleet.inspect(one.name)["State"]
    if one.runs is False and state["Running"]:
        return [f"{one.name} was stopped and runs"]
    if one.runs is not True:
        return []
    if not state["Running"]:
        return [f"{one.name} was started and does not run: {state}"]
    now = state["Pid"], state["StartedAt"]
    if one.facts not in (None, now):
        return [f"{one.name} was {one.facts} and is {now}"]
    if not Path(f"/proc/{state['Pid']}").exists():
        return [f"{one.name} is said to run as {state['Pid']}, which is gone"]
    if fleet.docker("exec", one.name, "echo", "here", code=None).out != "here":
        return [f"no exec in {one.name}"]
    if one.is_untouched:
        return _gaps(fleet.docker("logs", one.name).out)
    return []


@contextlib.contextmanager
def _report(seed: int, killed: list[str], students: list[Student]) -> Iterator[None]:
    """Print what led to a failure."""
    try:
        yield
    except BaseException:
        print(f"seed {seed}; killed: {'; '.join(killed)}")  # noqa: T201 - shown when it fails
        for student in students:
            print(f"student {student.number}:", *student.done, sep="\n  ")  # noqa: T201
        raise


def _class_works(fleet: Fleet, seed: int, lasts_s: float) -> None:
    fleet.docker("network", "create", "class")
    quiet = Student(fleet, 0, random.Random(seed))
    for _ in range(MOST_OWN):
        quiet.run()
    students = [Student(fleet, number, random.Random(f"{seed} {number}"))
                for number in range(1, STUDENTS + 1)]  # fmt: skip
    everybody = [quiet, *students]
    killed: list[str] = []
    with _report(seed, killed, everybody):
        over = threading.Event()
        threads = [threading.Thread(target=each.work, args=(over,)) for each in students]
        for thread in threads:
            thread.start()
        timer = threading.Timer(lasts_s, over.set)
        timer.start()
        try:
            killed += _kill_now_and_then(fleet, random.Random(f"{seed} kills"), over)
        finally:
            timer.cancel()
            over.set()
            for thread in threads:
                thread.join()
        fleet.wait_ready()
        assert all(each.exists and each.runs and each.facts for each in quiet.own)
        lies = _lies_that_stay(fleet, everybody)
        assert not lies, "\n".join(lies)
        until_clean(fleet)
        fleet.clean()
        until_clean(fleet)
        until_traceless(fleet)


def test_a_class_works_while_services_are_killed(fleet: Fleet) -> None:
    _class_works(fleet, int(os.environ.get("LABFLEET_TEST_SEED", "1")), 20)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 104))
def test_a_class_works_for_minutes_while_services_are_killed(fleet: Fleet, seed: int) -> None:
    _class_works(fleet, seed, 75)
