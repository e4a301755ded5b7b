"""Observations on their way from a host to the store, as the agent's publisher writes them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.loop import Steps

from labfleet_proto.buckets import observed_key
from labfleet_proto.containers import Observation
from labfleet_proto.errors import UnavailableError

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

_RETRY_S = 0.3


class Publisher:
    """Keeps the newest observation of each container on its way to the store, one write at a time."""

    def __init__(
        self, agent: "Agent", put: Callable[[str, Observation], int], *, in_order: bool
    ) -> None:
        self._agent = agent
        self._put = put
        self._in_order = in_order
        self._waiting: dict[str, Observation] = {}
        self._busy: set[str] = set()

    def observe(self, seen: Observation) -> None:
        key = observed_key(seen.host, seen.id)
        if not self._in_order:
            self._agent.process.spawn(self._write(key, seen))
            return
        known = self._waiting.get(key)
        if known is None or known.order() <= seen.order():
            self._waiting[key] = seen
        if key not in self._busy:
            self._busy.add(key)
            self._agent.process.spawn(self._flush(key))

    def _flush(self, key: str) -> Steps:
        while key in self._waiting:
            yield from self._write(key, self._waiting.pop(key))
        self._busy.discard(key)

    def _write(self, key: str, seen: Observation) -> Steps:
        while True:
            try:
                yield from self._agent.store.call(self._put, key, seen)
                return
            except UnavailableError:
                yield _RETRY_S
            if key in self._waiting and self._in_order:
                return
