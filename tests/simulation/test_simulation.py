"""Many seeds pass; each planted bug is noticed by the rule that is meant for it."""

import os
import random
from dataclasses import replace

import pytest
from tests.simulation.faults import Faults
from tests.simulation.loop import Violation
from tests.simulation.planted import BUGS
from tests.simulation.world import run

SEEDS = int(os.environ.get("LABFLEET_SEEDS", "60"))
LONG_SEEDS = 600
BUG_SEEDS = 200
"""How far the search for a seed that notices a planted bug goes."""

KEPT_SEEDS = (
    *(11, 25),  # a record that came while its container began was forgotten
    *(38,),  # a start was acknowledged of a container that removed itself
    *(43, 85, 288),  # an address whose claimer crashed stayed beside the real one
    *(100, 246),  # a container that removed itself was begun again by a late record
    *(668,),  # an entry of the ledger that nobody forgot
    *(831,),  # a start in progress took no room once its container was to be removed
    *(1746,),  # an address was released by a decision that had grown old
    *(237,),  # what was made for a restart by policy stayed when its owner stopped the container
    *(1857,),  # an attempt that a crash cut short ended without saying why
)


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_all_invariants_hold(first: int) -> None:
    for seed in range(first, min(first + 20, SEEDS)):
        run(seed)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + LONG_SEEDS, 50))
def test_all_invariants_hold_for_many_seeds(first: int) -> None:
    for seed in range(first, first + 50):
        run(seed)


@pytest.mark.parametrize("seed", range(4))
def test_without_any_reconcile_job_the_loops_reach_the_same_end(seed: int) -> None:
    faults = Faults.draw(random.Random(seed))
    run(seed, faults=replace(faults, dropped_kinds=frozenset({"reconcile"})))


def _noticed(bug: str, rule: str) -> tuple[int, str]:
    """The first seed that notices a planted bug by a rule, and what it says."""
    for seed in range(BUG_SEEDS):
        try:
            run(seed, bug)
        except Violation as violation:
            if violation.rule == rule:
                return seed, str(violation)
    raise AssertionError(f"{BUG_SEEDS} seeds did not notice: {bug}")


def test_the_same_seed_is_the_same_run() -> None:
    seed, first = _noticed("no ledger before start", "an attempt runs once")
    with pytest.raises(Violation) as caught:
        run(seed, "no ledger before start")
    assert str(caught.value).partition("Faults(")[0] == first.partition("Faults(")[0]


def test_a_failure_tells_its_seed() -> None:
    seed, said = _noticed("no ledger before start", "an attempt runs once")
    assert said.startswith(f"[an attempt runs once] seed {seed}: ")
    assert "CRASH" in said


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(bug: str) -> None:
    planted, seen = BUGS[bug], set()
    for seed in range(planted.seed, planted.seed + BUG_SEEDS):
        faults = replace(Faults.draw(random.Random(seed)), **planted.faults)
        try:
            run(seed, bug, faults=faults if planted.faults else None)
        except Violation as violation:
            seen.add(violation.rule)
        if planted.rule in seen:
            return
    pytest.fail(f"{BUG_SEEDS} seeds did not notice; seen: {seen or 'nothing'}")
