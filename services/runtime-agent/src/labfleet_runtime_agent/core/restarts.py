"""When a container that ended by itself is run again: moby's rules and its waits."""

from dataclasses import dataclass

from labfleet_proto.restarts import Restart, RestartPolicy

_FIRST_WAIT_MS = 100
_LONGEST_WAIT_MS = 60_000
_STEADY_S = 10.0
"""A run that lasted so long begins the waits anew (moby, `restartmanager`)."""


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    exit_code: int
    ran_s: float
    restart_count: int
    """Restarts by policy so far in this attempt."""
    last_wait_ms: int
    is_killed: bool = False
    """The owner sent it a signal that was to end it."""
    is_of_older_boot: bool = False
    """It ended with its machine."""


def wait_ms(policy: RestartPolicy, ending: Ending) -> int | None:
    """How long to wait before the next run; None if the policy does not run it again.

    `on-failure` is not for the end of the machine, as docker documents.
    """
    if not _applies(policy, ending):
        return None
    last = 0 if ending.ran_s >= _STEADY_S else ending.last_wait_ms
    return min(max(2 * last, _FIRST_WAIT_MS), _LONGEST_WAIT_MS)


def _applies(policy: RestartPolicy, ending: Ending) -> bool:
    if ending.is_of_older_boot:
        is_kept = policy.name is Restart.UNLESS_STOPPED and not ending.is_killed
        return policy.name is Restart.ALWAYS or is_kept
    if ending.is_killed:
        return False
    if policy.name is Restart.ON_FAILURE:
        is_left = policy.most_retries == 0 or ending.restart_count < policy.most_retries
        return ending.exit_code != 0 and is_left
    return policy.name in (Restart.ALWAYS, Restart.UNLESS_STOPPED)
