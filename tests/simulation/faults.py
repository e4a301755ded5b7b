"""What goes wrong in one run, and how often; drawn from the seed, ended by `stop`."""

import random
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Chances and delays. After `stop` messages are prompt and nothing is lost."""

    rng: random.Random
    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    """Share of the messages that are late by seconds, and so reordered."""
    store_lost: float = 0.0
    store_slow: float = 0.0
    watch_lags: float = 0.0
    watch_repeats: float = 0.0
    dropped_kinds: frozenset[str] = frozenset()
    """Every message of these kinds is lost, to the very end."""
    crashes: int = 0
    watch_losses: int = 0
    freezes: int = 0
    reboots: int = 0
    policies: float = 0.5
    """Share of the containers that may have a restart policy."""
    is_over: bool = field(default=False, init=False)

    @classmethod
    def draw(cls, rng: random.Random) -> "Faults":
        """Each kind of fault is absent, mild or bad."""

        def some(*choices: float) -> float:
            return rng.choice(choices)

        return cls(
            rng,
            lost=some(0, 0.03, 0.15),
            repeated=some(0, 0.05, 0.3),
            late=some(0, 0.03, 0.2),
            store_lost=some(0, 0, 0.01, 0.03),
            store_slow=some(0, 0.05, 0.3),
            watch_lags=some(0, 0.02, 0.1),
            watch_repeats=some(0, 0.1),
            dropped_kinds=frozenset({"reconcile"} if rng.random() < 0.15 else ()),
            crashes=int(some(0, 4, 10, 20)),
            watch_losses=int(some(0, 3, 8)),
            freezes=int(some(0, 0, 3)),
            reboots=int(some(0, 0, 0, 1)),
        )

    def stop(self) -> None:
        self.is_over = True

    def hits(self, chance: float) -> bool:
        return not self.is_over and chance > 0 and self.rng.random() < chance

    def message_delay(self) -> float:
        if self.hits(self.late):
            return self.rng.uniform(0.5, 9.0)
        return self.rng.uniform(0.0005, 0.005)

    def loses(self, kind: str) -> bool:
        return kind in self.dropped_kinds or self.hits(self.lost)

    def store_loses(self) -> bool:
        return self.hits(self.store_lost)

    def store_delay(self) -> float:
        if self.hits(self.store_slow):
            return self.rng.uniform(0.05, 0.5)
        return self.rng.uniform(0.0005, 0.003)

    def watch_lag(self) -> float:
        if self.hits(self.watch_lags):
            return self.rng.uniform(0.1, 3.0)
        return self.rng.uniform(0.001, 0.02)

    def watch_repeats_now(self) -> bool:
        return self.hits(self.watch_repeats)
