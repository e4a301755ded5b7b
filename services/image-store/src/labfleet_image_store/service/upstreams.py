"""The registries that the operators named, how they do, and asking them in order."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.clock import Clock
from labfleet_chassis.logs import Log
from labfleet_chassis.mirror import Mirror
from labfleet_image_store import metrics
from labfleet_image_store.adapters.upstream_client import RemoteManifest, UpstreamClient
from labfleet_image_store.core import upstreams as core
from labfleet_image_store.core.upstreams import Health, Route, Trouble, Upstream, UpstreamError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.upstreams import RegistryLogin, UpstreamRecord, UpstreamState

T = TypeVar("T")

_PROBE_EVERY_S = 30.0
_PROBE_LIMIT_S = 10.0

Troubles = list[tuple[Upstream, UpstreamError]]


class NoneHasItError(Exception):
    """Every upstream had trouble."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__("no upstream has it")
        self.troubles = troubles

    @property
    def may_be_there(self) -> bool:
        """Whether one that was not heard may have it; who refuses a login has been heard."""
        unheard = (Trouble.FAILED, Trouble.LIMITED)
        return any(error.trouble in unheard for _, error in self.troubles)


class Upstreams:
    """Routes and health. What is configured is read anew with every request."""

    def __init__(
        self, records: Mirror[UpstreamRecord], client: UpstreamClient, clock: Clock, log: Log
    ) -> None:
        self._records = records
        self._clock = clock
        self._log = log
        self._healths: dict[str, Health] = {}
        self._fetched: dict[str, int] = {}
        self.client = client

    def route(self, registry: str, login: RegistryLogin) -> Route | None:
        """The way to a registry's images for the caller's tenant; None if there is none."""
        tenant = caller_tenant()
        words = f"{tenant}\0{login.model_dump_json()}"
        fingerprint = hashlib.sha256(words.encode()).hexdigest()[:24]
        return core.route(
            self._records.values(),
            registry,
            login,
            fingerprint,
            is_any_allowed=tenant == OPERATORS,
        )

    def ordered(self, route: Route) -> list[Upstream]:
        """Whom to ask first, second, ..."""
        return core.in_order(route.upstreams, self._healths, self._clock.monotonic_s())

    def is_well(self, upstream: Upstream) -> bool:
        """Whether it need not rest now."""
        health = self._healths.get(upstream.name, Health())
        return health.rests_until_s <= self._clock.monotonic_s()

    def succeeded(self, upstream: Upstream, fetched: int = 0) -> None:
        """Remember a good answer, and bytes of blobs."""
        self._healths[upstream.name] = core.after_success()
        self._fetched[upstream.name] = self._fetched.get(upstream.name, 0) + fetched
        metrics.FETCHED.inc(fetched)

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        """Remember a bad answer."""
        before = self._healths.get(upstream.name, Health())
        after = core.after_trouble(before, error, self._clock.monotonic_s())
        self._healths[upstream.name] = after
        if after.word and not before.word:
            self._log.warning("upstream.rests", upstream=upstream.name, error=error.message)

    # -- asking

    async def ask(
        self, route: Route, path: str, question: Callable[[Upstream, str], Awaitable[T]]
    ) -> tuple[Upstream, T]:
        """Put a question about a repository to one upstream after the other. Raises NoneHasItError."""
        troubles: Troubles = []
        for upstream in self.ordered(route):
            for name in core.remote_paths(route.registry, path):
                try:
                    found = await question(upstream, name)
                except UpstreamError as exc:
                    troubles.append((upstream, exc))
                    self.failed(upstream, exc)
                    if exc.trouble not in (Trouble.ABSENT, Trouble.DENIED):
                        break
                else:
                    self.succeeded(upstream)
                    return upstream, found
        raise NoneHasItError(troubles)

    async def manifest(self, route: Route, path: str, reference: str) -> RemoteManifest:
        """Get a manifest. Raises NoneHasItError."""
        _, found = await self.ask(
            route, path, lambda upstream, name: self.client.manifest(upstream, name, reference)
        )
        return found

    async def digest(self, route: Route, path: str, reference: str) -> str:
        """What a tag points to now; empty where that is only told with the manifest.

        Raises NoneHasItError.
        """
        _, found = await self.ask(
            route, path, lambda upstream, name: self.client.head_manifest(upstream, name, reference)
        )
        return found

    async def tags(self, route: Route, path: str) -> list[str]:
        """All tags. Raises NoneHasItError."""
        _, found = await self.ask(route, path, self.client.tags)
        return found

    # -- health

    async def probe(self) -> None:
        """Ask every upstream from time to time whether it is there, for ever."""
        while True:
            for record in self._records.values():
                login = RegistryLogin(username=record.username, password=record.password)
                await self._probe(Upstream(record.name, record.url, login, record.ca_pem))
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _probe(self, upstream: Upstream) -> None:
        if not self.is_well(upstream):
            return  # it has not rested
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                await self.client.ping(upstream)
        except UpstreamError as exc:
            self.failed(upstream, exc)
        except TimeoutError:
            self.failed(upstream, UpstreamError(Trouble.FAILED, f"silent for {_PROBE_LIMIT_S} s"))
        else:
            self.succeeded(upstream)

    def states(self) -> tuple[UpstreamState, ...]:
        """How each does."""
        found = []
        for record in sorted(self._records.values(), key=lambda each: each.position):
            health = self._healths.get(record.name, Health())
            fetched = self._fetched.get(record.name, 0)
            found.append(
                UpstreamState(
                    name=record.name,
                    is_up=not health.word,
                    word=health.word,
                    fetched_bytes=fetched,
                )
            )
        return tuple(found)
