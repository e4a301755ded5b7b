"""Restart policies: when a host runs a container again by itself."""

from enum import StrEnum
from signal import SIGKILL, SIGTERM

from labfleet_proto.message import Message


class Restart(StrEnum):
    """Docker's names of the policies."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class RestartPolicy(Message):
    """What becomes of a container whose process ends by itself."""

    name: Restart = Restart.NO
    most_retries: int = 0
    """With `on-failure`: so many restarts at most in one attempt; 0 means no limit."""


def ends_restarts(number: int, stop_signal: int) -> bool:
    """Whether a signal of the owner's is meant to end the container: then it stays ended.

    moby: its stop signal and SIGKILL do; with no stop signal of its own any signal does.
    """
    return number in (SIGKILL, stop_signal) or stop_signal == SIGTERM
