"""What a container is doing, in docker's words."""

from typing import Any

from labfleet_api.core.times import ZERO, human, rfc3339
from labfleet_proto.containers import (
    ContainerRecord,
    Goal,
    Observation,
    State,
    awaits_restart,
)
from labfleet_proto.healthchecks import Health, HealthStatus

Json = dict[str, Any]

STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
"""All that docker knows; `dead` does not come about here."""
_LIVE = ("running", "paused", "restarting")
_NEVER_STARTED = (State.ASSIGNED, State.PREPARING, State.CREATED)


def state_of(record: ContainerRecord, seen: Observation | None) -> str:
    """Docker's word: one of `STATES`."""
    if record.goal is Goal.REMOVED or (seen is not None and seen.state is State.REMOVED):
        return "removing"
    if seen is None:
        return "created"
    if seen.state in _NEVER_STARTED:
        return "restarting" if seen.restart_count else "created"
    if seen.state in (State.RUNNING, State.STOPPING):
        return "paused" if seen.is_paused else "running"
    if awaits_restart(record, seen):
        return "restarting"
    return "exited" if seen.started_at_ns else "created"


def is_live(state: str) -> bool:
    """Whether docker counts a container in this state as running."""
    return state in _LIVE


def health_of(record: ContainerRecord, seen: Observation | None) -> Health | None:
    """The health of a container that has a check; None of others."""
    check = record.spec.healthcheck
    if check is None or not check.argv:
        return None
    return (seen.health if seen is not None else None) or Health()


def health_word(record: ContainerRecord, seen: Observation | None) -> str:
    """What the filter `health` compares with."""
    health = health_of(record, seen)
    return health.status if health is not None else "none"


def restart_count(record: ContainerRecord, seen: Observation | None) -> int:
    """Restarts by policy in this attempt; one that is about to come counts, as in moby."""
    if seen is None:
        return 0
    return seen.restart_count + (1 if awaits_restart(record, seen) else 0)


def status_of(
    record: ContainerRecord, seen: Observation | None, now_ns: int, *, is_host_lost: bool
) -> str:
    """The column STATUS of `docker ps`."""
    state = state_of(record, seen)
    text = {"created": "Created", "removing": "Removal In Progress"}.get(state, "")
    if seen is not None and state in ("running", "paused"):
        text = f"Up {human((now_ns - seen.started_at_ns) / 1e9)}{_note(record, seen)}"
    if seen is not None and state in ("exited", "restarting"):
        ago = human((now_ns - seen.finished_at_ns) / 1e9)
        word = "Exited" if state == "exited" else "Restarting"
        text = f"{word} ({seen.exit_code or 0}) {ago} ago"
    return f"{text} (host {record.assignment.host} is lost)" if is_host_lost else text


def _note(record: ContainerRecord, seen: Observation) -> str:
    """What docker adds in brackets to a running container."""
    if seen.is_paused:
        return " (Paused)"
    health = health_of(record, seen)
    if health is None:
        return ""
    is_starting = health.status is HealthStatus.STARTING
    return f" ({'health: ' if is_starting else ''}{health.status})"


def state_json(record: ContainerRecord, seen: Observation | None) -> Json:
    """`State` of inspect."""
    state = state_of(record, seen)
    shown: Json = {
        "Status": state,
        "Running": is_live(state),
        "Paused": state == "paused",
        "Restarting": state == "restarting",
        "OOMKilled": bool(seen and seen.was_oom_killed),
        "Dead": False,
        "Pid": seen.pid if seen and state in ("running", "paused") else 0,
        "ExitCode": (seen.exit_code or 0) if seen else 0,
        "Error": seen.error if seen else "",
        "StartedAt": rfc3339(seen.started_at_ns) if seen else ZERO,
        "FinishedAt": rfc3339(seen.finished_at_ns) if seen else ZERO,
    }
    health = health_of(record, seen)
    if health is not None:
        shown["Health"] = {
            "Status": health.status,
            "FailingStreak": health.failing_streak,
            "Log": [
                {
                    "Start": rfc3339(each.started_at_ns),
                    "End": rfc3339(each.ended_at_ns),
                    "ExitCode": each.exit_code,
                    "Output": each.output,
                }
                for each in health.log
            ],
        }
    return shown
