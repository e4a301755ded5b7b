"""Resource vectors and `fits`, the one admission rule that scheduler and agent share."""

from labfleet_proto.message import Message


class Resources(Message):
    """Amounts of what a host has and a container takes."""

    memory_bytes: int = 0
    cpu_millis: int = 0
    pids: int = 0
    containers: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        """Return the sum by component."""
        return Resources(
            memory_bytes=self.memory_bytes + other.memory_bytes,
            cpu_millis=self.cpu_millis + other.cpu_millis,
            pids=self.pids + other.pids,
            containers=self.containers + other.containers,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        """Return the difference by component; a component may become negative (overcommitted)."""
        return Resources(
            memory_bytes=self.memory_bytes - other.memory_bytes,
            cpu_millis=self.cpu_millis - other.cpu_millis,
            pids=self.pids - other.pids,
            containers=self.containers - other.containers,
        )

    def positive(self) -> "Resources":
        """Return it with 0 for what is below."""
        return Resources(
            memory_bytes=max(self.memory_bytes, 0),
            cpu_millis=max(self.cpu_millis, 0),
            pids=max(self.pids, 0),
            containers=max(self.containers, 0),
        )


def lacking(request: Resources, free: Resources) -> tuple[str, ...]:
    """Return the names of the resources of which `free` has too little, in field order; empty if it fits."""
    named = (
        ("memory", request.memory_bytes, free.memory_bytes),
        ("cpu", request.cpu_millis, free.cpu_millis),
        ("pids", request.pids, free.pids),
        ("container slots", request.containers, free.containers),
    )
    return tuple(name for name, wanted, there in named if wanted > max(there, 0))


def fits(request: Resources, free: Resources) -> bool:
    """Whether `request` can be taken from `free`."""
    return not lacking(request, free)
