"""What is measured, and what was found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")


@dataclass
class Samples:
    """What one engine did in all its slots of one measure."""

    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, error: Exception) -> None:
        """Count a failure."""
        self.failures.append(f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Measure(Generic[P]):
    """One line of the targets in the design."""

    key: str
    title: str
    first_bar: float
    rounds: int
    count: int
    slot: Callable[[P, int, Samples], None]
    stock: int = 0
    """Created containers that stand there meanwhile."""
    hosts: int = 1
    """Of the fleet: one host holds 250 containers."""
