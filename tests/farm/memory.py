"""The fleet's memory, read and written past the services."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import nats
import nats.js.errors
import pytest
from nats.js.kv import KeyValue
from tests.farm.fleet import Fleet

T = TypeVar("T")


def _with(fleet: Fleet, bucket: str, work: Callable[[KeyValue], Awaitable[T]]) -> T:
    async def run() -> T:
        client = await nats.connect(fleet.plan.nats_url, token=fleet.plan.choices.nats_token)
        try:
            return await work(await client.jetstream().key_value(bucket))
        finally:
            await client.close()

    return asyncio.run(run())


def mark_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let watches announce the end of what is there before they have handed anything on.

    So the client library does when the server has sent everything and nothing was taken in yet.
    """
    watch = KeyValue.watch

    async def marked(*arguments: Any, **options: Any) -> KeyValue.KeyWatcher:
        watcher = await watch(*arguments, **options)
        watcher._updates._queue.appendleft(None)  # type: ignore[attr-defined]
        return watcher

    monkeypatch.setattr(KeyValue, "watch", marked)


def recall(fleet: Fleet, bucket: str, key: str) -> dict[str, Any] | None:
    """The value of a key; None if there is none."""

    async def read(values: KeyValue) -> dict[str, Any] | None:
        try:
            found = await values.get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        return json.loads(found.value) if found.value else None

    return _with(fleet, bucket, read)


def remember(fleet: Fleet, bucket: str, key: str, value: dict[str, Any]) -> None:
    """Write a key, whatever it was."""

    async def write(values: KeyValue) -> None:
        await values.put(key, json.dumps(value).encode())

    _with(fleet, bucket, write)


def forget_all(fleet: Fleet, bucket: str) -> None:
    """Delete every key."""

    async def purge(values: KeyValue) -> None:
        try:
            keys = await values.keys()
        except nats.js.errors.NoKeysError:
            return
        for key in keys:
            await values.delete(key)

    _with(fleet, bucket, purge)
