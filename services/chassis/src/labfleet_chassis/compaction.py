"""Write the fleet's memory anew when it consists mostly of deletions.

A deletion stays in its bucket as an empty message (ADR 0016). After some hundred thousand of them
the services would take seconds to read a bucket when they start. So before they start the values are
put aside in a file, the stream is deleted as a whole and made again from the file. Whoever dies on the
way finds the file at the next start and begins there.
"""

import asyncio
import base64
import contextlib
import json
import time
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.kv import KeyValue

from labfleet_chassis.durable_files import remove_durably, write_durably
from labfleet_chassis.store import keep_newest_only, translated
from labfleet_chassis.watching import is_gone, next_change
from labfleet_proto.errors import UnavailableError

_LIMIT_S = 120.0
_PREFIX = "KV_"


async def compact_at(url: str, token: str, aside: Path, many: int) -> list[str]:
    """`compact` on a server that is about to take clients. Raises UnavailableError, OSError."""
    with translated(f"compaction of the memory at {url}"):
        async with asyncio.timeout(_LIMIT_S):
            client = await _connected(url, token)
            try:
                return await compact(client.jetstream(timeout=_LIMIT_S), aside, many)
            finally:
                await client.close()


async def _connected(url: str, token: str) -> Client:
    """Connect as soon as the server takes clients and has read its files."""
    end_s = time.monotonic() + _LIMIT_S
    while True:
        try:
            client = await nats.connect(url, token=token, allow_reconnect=False)
            await client.jetstream().account_info()
        except (OSError, nats.errors.Error, nats.js.errors.Error):
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return client


async def compact(js: JetStreamContext, aside: Path, many: int) -> list[str]:
    """Write anew the buckets of `many` messages that are mostly deletions; return their names.

    `aside` is a directory for the values meanwhile; what an earlier call left there is finished
    first. Nobody else may use the memory.
    """
    aside.mkdir(exist_ok=True, mode=0o700)
    for file in sorted(aside.glob("*.json")):
        await _restore(js, file)
    compacted = []
    for stream in await js.streams_info():
        name = stream.config.name or ""
        if not name.startswith(_PREFIX) or stream.config.max_age or stream.state.messages < many:
            continue
        kv = await js.key_value(name.removeprefix(_PREFIX))
        await keep_newest_only(js, kv)
        newest = await js.stream_info(name)
        values = await _values(kv, newest.state.messages)
        if 2 * len(values) > newest.state.messages:
            continue
        file = aside / f"{name}.json"
        saved = {
            "config": newest.config.as_dict() | {"first_seq": newest.state.last_seq + 1},
            "values": {key: base64.b64encode(value).decode() for key, value in values.items()},
        }
        write_durably(file, json.dumps(saved).encode())
        await _restore(js, file)
        compacted.append(name.removeprefix(_PREFIX))
    aside.rmdir()
    return compacted


async def _values(kv: KeyValue, messages: int) -> dict[str, bytes]:
    """Values of a bucket of as many keys, deleted ones among them, as it has `messages`.

    The keys are counted because the client library may announce the end of what is there before it
    has handed anything on; what is not read here is lost. Raises UnavailableError.
    """
    values: dict[str, bytes] = {}
    keys: set[str] = set()
    watcher = await kv.watchall()
    try:
        async with asyncio.timeout(_LIMIT_S):
            while len(keys) < messages:
                change = await next_change(watcher)
                if change is None:
                    continue
                keys.add(change.key)
                values.pop(change.key, None)
                if change.value and not is_gone(change):
                    values[change.key] = change.value
    except TimeoutError as exc:
        raise UnavailableError(
            f"compaction of a bucket: {len(keys)} of its {messages} messages could be read"
        ) from exc
    finally:
        await watcher.stop()  # type: ignore[no-untyped-call]
    return values


async def _restore(js: JetStreamContext, file: Path) -> None:
    """Make the stream that the file tells of from it alone, then remove the file."""
    saved = json.loads(file.read_text())
    config = api.StreamConfig.from_response(saved["config"])
    name = config.name or ""
    with contextlib.suppress(nats.js.errors.NotFoundError):  # whoever left the file came this far
        await js.delete_stream(name)
    await js.add_stream(config)
    for key, value in saved["values"].items():
        await js.publish(f"$KV.{name.removeprefix(_PREFIX)}.{key}", base64.b64decode(value))
    remove_durably(file)
