"""Upstreams in the fleet's memory: what `labfleet mirror` does."""

import re
import ssl
import time
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from labfleet_chassis.bus import Bus
from labfleet_chassis.store import ExistsError
from labfleet_proto import buckets
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from labfleet_proto.ids import OPERATORS
from labfleet_proto.message import Nothing
from labfleet_proto.upstreams import (
    HUB,
    UPSTREAM_STATES,
    UpstreamRecord,
    UpstreamState,
    checked_domain,
    checked_name,
)

_STEP = 10


@dataclass(frozen=True)
class MirrorWish:
    """A mirror that is to be added."""

    url: str
    name: str
    registry: str
    username: str
    password: str
    ca_pem: str
    expiry: timedelta
    is_first: bool = False


def checked_url(text: str) -> str:
    """Return the URL of a registry, without a slash at its end. Raises InvalidRequestError."""
    text = text.rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequestError(f"{text!r}: a mirror is http://HOST[:PORT] or https://...")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidRequestError(
            f"mirror {parts.hostname}: the URL has neither user nor query; use --user and "
            "--password-stdin"
        )
    checked_domain(parts.netloc)
    return text


def name_of(url: str) -> str:
    """A name for a mirror that was not given one."""
    return re.sub(r"[^a-z0-9]+", "-", urlsplit(url).netloc.lower()).strip("-")


class Mirrors:
    """Writes the bucket of upstreams; the operator's command line is its only writer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def every(self) -> list[UpstreamRecord]:
        """All, in the order in which they are asked."""
        bucket = await self._bus.bucket(buckets.UPSTREAMS)
        found = (await bucket.values()).values()
        return sorted(found, key=lambda each: (each.registry != HUB, each.registry, each.position))

    async def add(self, wish: MirrorWish) -> UpstreamRecord:
        """Add one, behind the others or before them. Raises InvalidRequestError, ConflictError."""
        url = checked_url(wish.url)
        if wish.ca_pem:
            try:
                ssl.create_default_context(cadata=wish.ca_pem)
            except ssl.SSLError as exc:
                raise InvalidRequestError(f"--ca: no certificates in it: {exc}") from exc
        places = [each.position for each in await self.every()] or [0]
        record = UpstreamRecord(
            name=checked_name(wish.name or name_of(url)),
            url=url,
            registry=checked_domain(wish.registry),
            position=min(places) - _STEP if wish.is_first else max(places) + _STEP,
            username=wish.username,
            password=wish.password,
            ca_pem=wish.ca_pem,
            expiry_s=int(wish.expiry.total_seconds()),
            added_at_ns=time.time_ns(),
        )
        try:
            await (await self._bus.bucket(buckets.UPSTREAMS)).create(record.name, record)
        except ExistsError as exc:
            raise ConflictError(
                f"mirror {record.name} exists already: rm it, or use --name"
            ) from exc
        return record

    async def remove(self, name: str) -> None:
        """Forget one; what was fetched from it stays. Raises NotFoundError."""
        bucket = await self._bus.bucket(buckets.UPSTREAMS)
        if await bucket.get(checked_name(name)) is None:
            raise NotFoundError(f"there is no mirror {name}")
        await bucket.delete(name)

    async def states(self) -> dict[str, UpstreamState]:
        """How each does; nothing while the image store does not answer."""
        try:
            found = await self._bus.call(
                UPSTREAM_STATES, Nothing(), tenant=OPERATORS, subject="upstreams"
            )
        except UnavailableError:
            return {}
        return {each.name: each for each in found.upstreams}
