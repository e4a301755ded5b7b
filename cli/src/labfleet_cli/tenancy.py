"""Tenants, tokens and certificates in the fleet's memory: what `labfleet tenant` and `token` do."""

import re
import secrets
import time
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from labfleet_chassis.bus import Bus
from labfleet_chassis.store import ExistsError
from labfleet_cli.authority import Authority, Issued, write_client
from labfleet_proto import buckets, tenants
from labfleet_proto.buckets import BucketDef
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import TENANTS_STORAGE, TenantStorage
from labfleet_proto.message import Message, Nothing
from labfleet_proto.registry_access import RepositoryGrant
from labfleet_proto.tenants import CertificateRecord, TenantRecord, TokenRecord

M = TypeVar("M", bound=Message)

_DURATION = re.compile(r"(\d{1,6})([smhd])")
_SIZE = re.compile(r"(\d{1,9})([kmgt]?)b?")
_UNITS_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> timedelta:
    """Parse `90s`, `15m`, `12h` or `30d`. Raises InvalidRequestError."""
    found = _DURATION.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise InvalidRequestError(f"{text!r} is no duration: such as 90s, 15m, 12h or 30d")
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]])


def byte_count(text: str) -> int:
    """Parse `500MB`, `20GB` or `none`, which is 0. Raises InvalidRequestError."""
    found = _SIZE.fullmatch(text.lower())
    if text == "none":
        return 0
    if found is None or int(found[1]) == 0:
        raise InvalidRequestError(f"{text!r} is no size: such as 500MB, 20GB or none")
    return int(found[1]) * _UNITS_BYTES[found[2]]


class Tenancy:
    """Writes the buckets of credentials; the operator's command line is their only writer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def _values(self, definition: BucketDef[M]) -> list[M]:
        return list((await (await self._bus.bucket(definition)).values()).values())

    # -- tenants

    async def create(self, name: str, stored_bytes: int, repositories: int) -> TenantRecord:
        """Make a tenant; a quota of 0 is none.

        Raises InvalidRequestError, ConflictError (it exists, or something of an earlier one does still),
        UnavailableError.
        """
        tenant = tenants.checked_tenant(name)
        is_new = await (await self._bus.bucket(buckets.TENANTS)).get(tenant) is None
        if is_new and (left := await self._left_of(tenant)):
            raise ConflictError(
                f"{' and '.join(left)} of an earlier tenant {name} are being removed: "
                "try again in a minute"
            )
        record = TenantRecord(
            id=tenant,
            created_at_ns=time.time_ns(),
            most_stored_bytes=stored_bytes,
            most_repositories=repositories,
        )
        try:
            await (await self._bus.bucket(buckets.TENANTS)).create(record.id, record)
        except ExistsError as exc:
            raise ConflictError(f"tenant {name} exists already") from exc
        return record

    async def limit(
        self, name: str, stored_bytes: int | None, repositories: int | None
    ) -> TenantRecord:
        """Change quotas: 0 is none, None leaves one as it is. Raises NotFoundError."""
        bucket = await self._bus.bucket(buckets.TENANTS)
        entry = await bucket.get(name)
        if entry is None:
            raise NotFoundError(f"there is no tenant {name}: `labfleet tenant create {name}`")
        wishes = {"most_stored_bytes": stored_bytes, "most_repositories": repositories}
        changed = entry.value.model_copy(
            update={key: value for key, value in wishes.items() if value is not None}
        )
        await bucket.update(name, changed, entry.revision)
        return changed

    async def _left_of(self, tenant: TenantId) -> list[str]:
        """Kinds of things that whoever makes a tenant now would inherit. Raises UnavailableError."""
        owned = await self.owned(tenant)
        owned["networks"] = sum(
            each.tenant == tenant for each in await self._values(buckets.NETWORKS)
        )
        owned["images"] = int(tenant in await self._stored())
        return [kind for kind, count in owned.items() if count]

    async def _stored(self) -> dict[str, TenantStorage]:
        found = await self._bus.call(
            TENANTS_STORAGE, Nothing(), tenant=OPERATORS, subject="tenants"
        )
        return {each.tenant: each for each in found.tenants}

    async def storage(self) -> dict[str, TenantStorage]:
        """What each tenant keeps in the image store; nothing while that does not answer."""
        try:
            return await self._stored()
        except UnavailableError:
            return {}

    async def every(self) -> list[TenantRecord]:
        """All tenants by name."""
        return sorted(await self._values(buckets.TENANTS), key=lambda each: each.id)

    async def owned(self, tenant: TenantId) -> dict[str, int]:
        """How many things a tenant has, of each kind that is not made by itself."""
        counted = {
            "containers": await self._values(buckets.CONTAINERS),
            "volumes": await self._values(buckets.VOLUMES),
        }
        return {
            kind: sum(each.tenant == tenant for each in records)  # type: ignore[attr-defined]
            for kind, records in counted.items()
        }

    async def close(self, name: str) -> TenantId:
        """Refuse the tenant's credentials from now on. Raises NotFoundError."""
        bucket = await self._bus.bucket(buckets.TENANTS)
        entry = await bucket.get(name)
        if entry is None:
            raise NotFoundError(f"there is no tenant {name}")
        leaving = entry.value.model_copy(update={"is_leaving": True})
        await bucket.update(name, leaving, entry.revision)
        return entry.value.id

    async def forget(self, tenant: TenantId) -> None:
        """Drop the tenant's credentials, then the tenant; safe to repeat."""
        tokens = await self._bus.bucket(buckets.TOKENS)
        for token in await self._values(buckets.TOKENS):
            if token.tenant == tenant:
                await tokens.delete(token.id)
        certificates = await self._bus.bucket(buckets.CERTIFICATES)
        for certificate in await self._values(buckets.CERTIFICATES):
            if certificate.tenant == tenant:
                await certificates.delete(certificate.fingerprint)
        await (await self._bus.bucket(buckets.TENANTS)).delete(tenant)

    async def _require(self, name: str) -> TenantId:
        if name == OPERATORS:
            return OPERATORS
        entry = await (await self._bus.bucket(buckets.TENANTS)).get(name)
        if entry is None or entry.value.is_leaving:
            raise NotFoundError(f"there is no tenant {name}: `labfleet tenant create {name}`")
        return entry.value.id

    # -- tokens

    async def create_token(
        self,
        name: str,
        scopes: tuple[str, ...],
        life: timedelta | None,
        note: str,
        repositories: tuple[RepositoryGrant, ...] = (),
    ) -> tuple[TokenRecord, str]:
        """Make a token, a robot's with `repositories` and no scopes; its text is returned this once.

        Raises NotFoundError, InvalidRequestError.
        """
        tenant = await self._require(name)
        secret = secrets.token_hex(24)
        now = time.time_ns()
        record = TokenRecord(
            id=secrets.token_hex(6),
            tenant=tenant,
            secret_sha256=tenants.secret_hash(secret),
            scopes=() if repositories else tenants.checked_scopes(tenant, scopes),
            repositories=repositories,
            created_at_ns=now,
            expires_at_ns=now + int(life.total_seconds() * 1e9) if life else 0,
            note=note,
        )
        await (await self._bus.bucket(buckets.TOKENS)).create(record.id, record)
        return record, tenants.token_text(record.id, secret)

    async def tokens(self, tenant: str | None) -> list[TokenRecord]:
        """Tokens, of one tenant or of all, oldest first."""
        every = await self._values(buckets.TOKENS)
        own = [each for each in every if tenant is None or each.tenant == tenant]
        return sorted(own, key=lambda each: each.created_at_ns)

    async def revoke(self, token: str) -> None:
        """Revoke by id, or by the whole token. Raises NotFoundError."""
        parts = tenants.split_token(token)
        bucket = await self._bus.bucket(buckets.TOKENS)
        key = parts[0] if parts else token
        if re.fullmatch(r"[0-9a-f]{12}", key) is None or await bucket.get(key) is None:
            raise NotFoundError(f"there is no token {key}")
        await bucket.delete(key)

    # -- certificates

    async def certify(
        self, authority: Authority, name: str, scopes: tuple[str, ...], life: timedelta, out: Path
    ) -> CertificateRecord:
        """Issue a client certificate into a directory. Raises NotFoundError, InvalidRequestError."""
        tenant = await self._require(name)
        allowed = tenants.checked_scopes(tenant, scopes)
        issued: Issued = authority.client(tenant, life)
        record = CertificateRecord(
            fingerprint=issued.fingerprint,
            tenant=tenant,
            scopes=allowed,
            created_at_ns=time.time_ns(),
            expires_at_ns=int(issued.expires_at.timestamp() * 1e9),
        )
        write_client(out, authority.ca, issued)
        await (await self._bus.bucket(buckets.CERTIFICATES)).create(record.fingerprint, record)
        return record

    async def certificates(self, tenant: str | None) -> list[CertificateRecord]:
        """Certificates, of one tenant or of all, oldest first."""
        every = await self._values(buckets.CERTIFICATES)
        own = [each for each in every if tenant is None or each.tenant == tenant]
        return sorted(own, key=lambda each: each.created_at_ns)

    async def distrust(self, fingerprint: str) -> None:
        """Revoke a certificate by a prefix of its fingerprint. Raises NotFoundError, ConflictError."""
        every = await self._values(buckets.CERTIFICATES)
        found = [each for each in every if each.fingerprint.startswith(fingerprint)]
        if len(found) > 1:
            raise ConflictError(f"{len(found)} certificates begin with {fingerprint}")
        if not found or not fingerprint:
            raise NotFoundError(f"there is no certificate {fingerprint}")
        bucket = await self._bus.bucket(buckets.CERTIFICATES)
        await bucket.delete(found[0].fingerprint)
