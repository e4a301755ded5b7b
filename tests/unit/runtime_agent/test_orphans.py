"""Which children count as dead: looked at without waiting for them."""

import subprocess

from labfleet_runtime_agent.adapters.orphans import _is_dead


def test_a_child_that_runs_is_not_dead() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not _is_dead(child.pid)
        child.kill()


def test_a_dead_child_is_left_to_whoever_waits_for_it() -> None:
    with subprocess.Popen(["false"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        while not _is_dead(child.pid):
            pass
        assert _is_dead(child.pid)
        assert child.wait() == 1
        assert not _is_dead(child.pid)
