"""Reading a watch of a bucket: its changes, and when what was there at its beginning has been seen."""

from nats.js.kv import KV_DEL, KV_PURGE, KeyValue

from labfleet_proto.errors import UnavailableError


class FirstPass:
    """How far a watch has come with what was there when it began.

    The client library marks the end of the pass, but may do so before it has handed on all that the
    server had sent already. So the pass is over when the newest write from before it was seen, too;
    or, should that have been taken away meanwhile, when nothing more comes for a while.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        """Revision of the newest write, read before the watch began."""
        self.keys: set[str] = set()
        self.is_marked = False
        self._top = 0

    def take(self, change: KeyValue.Entry | None) -> bool:
        """Take a change, or the mark (None); whether the pass is over now."""
        if change is None:
            self.is_marked = True
        else:
            self.keys.add(change.key)
            self._top = max(self._top, change.revision or 0)
        return self.is_marked and self._top >= self.position


def is_gone(change: KeyValue.Entry) -> bool:
    """Whether the change took the key away."""
    return change.operation in (KV_DEL, KV_PURGE) or not change.value


async def next_change(watcher: KeyValue.KeyWatcher) -> KeyValue.Entry | None:
    """The next change; None once, after the first pass. Raises UnavailableError at the watch's end.

    Not `updates()`, whose limit may swallow a cancellation (bpo-42130): the task would go on for ever.
    """
    try:
        return await anext(watcher)
    except StopAsyncIteration as exc:
        raise UnavailableError("the watch has ended") from exc
