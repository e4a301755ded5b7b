"""A fake key-value store: create-only, compare-and-set by revision, values that expire, watches.

Requests and replies may be late or lost. A watch keeps its order, may lag, deliver twice, or die
silently; `Mirror` folds it as the chassis does: full pass, then changes, full pass again in doubt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import Future, Loop, Process, Steps, within

from labfleet_proto.errors import ConflictError, StaleError

if TYPE_CHECKING:
    from tests.simulation.faults import Faults

_REPLY_LIMIT_S = 2.0
_DOUBT_EVERY_S = 5.0
_END = "<end of the full pass>"


class ExistsError(ConflictError):
    """A create-only key is taken."""


@dataclass(frozen=True)
class Entry:
    key: str
    value: Any
    revision: int


@dataclass(eq=False)
class Watch:
    tell: Callable[[str, Entry | None, int], None]
    is_dead: bool = False
    next_s: float = 0.0


Check = Callable[[str, Any, Any], None]


class Bucket:
    """The truth of one bucket. Methods take effect at once; shells reach them through `Store.call`."""

    def __init__(self, loop: Loop, name: str, ttl_s: float = 0.0) -> None:
        self.name = name
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.watches: list[Watch] = []
        self.checks: list[Check] = []
        """Invariants: called with key, old and new value before a write."""
        self.lag: Callable[[], float] = lambda: 0.0
        self.repeats: Callable[[], bool] = lambda: False
        self._loop = loop
        self._ttl_s = ttl_s

    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def create(self, key: str, value: Any) -> int:
        if key in self.entries:
            raise ExistsError(f"create {key} in {self.name}: it exists")
        return self.put(key, value)

    def update(self, key: str, value: Any, revision: int) -> int:
        if key not in self.entries or self.entries[key].revision != revision:
            raise StaleError(f"update {key} in {self.name}: changed meanwhile")
        return self.put(key, value)

    def put(self, key: str, value: Any) -> int:
        self._write(key, value)
        self.entries[key] = entry = Entry(key, value, self.revision)
        self._tell(key, entry)
        if self._ttl_s:
            self._loop.at(self._ttl_s, lambda: self._expire(entry))
        return self.revision

    def delete(self, key: str, revision: int | None = None) -> None:
        known = self.entries.get(key)
        if revision is not None and (known is None or known.revision != revision):
            raise StaleError(f"delete {key} in {self.name}: changed meanwhile")
        if known is not None:
            self._write(key, None)
            del self.entries[key]
            self._tell(key, None)

    def _write(self, key: str, value: Any) -> None:
        known = self.entries.get(key)
        for check in self.checks:
            check(key, known.value if known else None, value)
        self.revision += 1

    def _expire(self, entry: Entry) -> None:
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]

    def _tell(self, key: str, entry: Entry | None) -> None:
        for watch in self.watches:
            self.deliver(watch, key, entry, self.revision)

    def deliver(self, watch: Watch, key: str, entry: Entry | None, revision: int) -> None:
        """Send one change to one watch, in order."""
        for _ in range(2 if self.repeats() else 1):
            watch.next_s = max(watch.next_s, self._loop.now + self.lag())

            def arrive() -> None:
                if not watch.is_dead:
                    watch.tell(key, entry, revision)

            self._loop.at_time(watch.next_s, arrive)


@dataclass
class Store:
    """All buckets, behind a connection that may fail."""

    loop: Loop
    faults: "Faults"
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def call(self, operation: Callable[..., Any], *args: Any) -> Steps:
        """Perform `operation(*args)` at the store; it may be done although UnavailableError is raised."""
        done = Future(self.loop)

        def arrive() -> None:
            try:
                value, error = operation(*args), None
            except (ConflictError, StaleError) as exc:
                value, error = None, exc
            if not self.faults.store_loses():
                self.loop.at(self.faults.store_delay(), lambda: done.set(value, error))

        if not self.faults.store_loses():
            self.loop.at(self.faults.store_delay(), arrive)
        return (yield from within(self.loop, done, _REPLY_LIMIT_S, operation.__name__))


class Mirror:
    """A bucket folded into a dict, in the memory of a process."""

    def __init__(
        self, store: Store, process: Process, name: str, *, resyncs: bool = True, delay_s: float = 0
    ) -> None:
        self.bucket = store.buckets[name]
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.ready = Future(store.loop)
        self._loop = store.loop
        self._faults = store.faults
        self._process = process
        self._resyncs = resyncs
        self._listeners: list[Callable[[str, Entry | None], None]] = []
        self._heard: dict[str, float] = {}
        self._last_s = 0.0
        self._in_pass: set[str] | None = None
        self._position = 0
        self._watch = Watch(lambda _key, _entry, _revision: None)
        self._loop.at(delay_s, self._open)
        self._loop.at(_DOUBT_EVERY_S, self._doubt)

    def get(self, key: str) -> Any:
        entry = self.entries.get(key)
        return entry.value if entry else None

    def values(self) -> list[Any]:
        return [entry.value for entry in self.entries.values()]

    def as_dict(self) -> dict[str, Any]:
        return {key: entry.value for key, entry in self.entries.items()}

    def age_s(self, key: str) -> float:
        return self._loop.now - self._heard.get(key, float("-inf"))

    def listen(self, callback: Callable[[str, Entry | None], None]) -> None:
        self._listeners.append(callback)

    def wait_for(self, revision: int, limit_s: float = 5.0) -> Steps:
        """Read your writes. Raises UnavailableError."""
        seen = Future(self._loop)

        def look() -> None:
            if self.revision >= revision:
                seen.set()
            elif not seen.is_done and self._process.is_alive:
                self._loop.at(0.02, look)

        look()
        yield from within(self._loop, seen, limit_s, f"the view of {self.bucket.name}")

    def lose(self) -> None:
        """The watch dies silently."""
        self._loop.note(self._process.name, f"watch of {self.bucket.name} LOST")
        self._watch.is_dead = True

    def _open(self) -> None:
        """Watch anew; a full pass comes first."""
        if not self._process.is_alive:
            self._close()
            return
        bucket, first = self.bucket, not self.ready.is_done
        self._close()
        self._watch = watch = Watch(lambda *change: self._hear(watch, *change))
        bucket.watches.append(watch)
        if first or self._resyncs:
            self._in_pass, self._position = set(), bucket.revision
            for entry in sorted(bucket.entries.values(), key=lambda each: each.revision):
                bucket.deliver(self._watch, entry.key, entry, entry.revision)
            bucket.deliver(self._watch, _END, None, bucket.revision)

    def _close(self) -> None:
        self._watch.is_dead = True
        if self._watch in self.bucket.watches:
            self.bucket.watches.remove(self._watch)

    def _doubt(self) -> None:
        if not self._process.is_alive:
            self._close()
            return
        is_silent = self._loop.now - self._last_s >= _DOUBT_EVERY_S - 0.01
        if is_silent and (self._in_pass is not None or self.bucket.revision > self.revision):
            self._open()
        self._loop.at(_DOUBT_EVERY_S, self._doubt)

    def _hear(self, watch: Watch, key: str, entry: Entry | None, revision: int) -> None:
        """Take a change up; a frozen process does so when it thaws."""
        thaw_s = self._process.frozen_until_s
        if thaw_s > self._loop.now:
            self._loop.at_time(thaw_s, lambda: self._hear(watch, key, entry, revision))
        elif self._process.is_alive and not watch.is_dead:
            self._fold(key, entry, revision)

    def _fold(self, key: str, entry: Entry | None, revision: int) -> None:
        self._last_s = self._loop.now
        known = self.entries.get(key)
        if key == _END:
            self._finish_pass()
            return
        if self._in_pass is not None:
            self._in_pass.add(key)
        if entry is None:
            if known is not None and known.revision < revision:
                self._drop(key)
        else:
            self._heard[key] = self._loop.now
            if known is None or known.revision < revision:
                self.entries[key] = entry
                self._tell(key, entry)
        self.revision = max(self.revision, revision)

    def _finish_pass(self) -> None:
        if self._in_pass is None:
            return
        for key in sorted(self.entries.keys() - self._in_pass):
            self._drop(key)
        self._in_pass = None
        self.revision = max(self.revision, self._position)
        self.ready.set()

    def _drop(self, key: str) -> None:
        self.entries.pop(key, None)
        self._heard.pop(key, None)
        self._tell(key, None)

    def _tell(self, key: str, entry: Entry | None) -> None:
        for listener in self._listeners:
            listener(key, entry)
