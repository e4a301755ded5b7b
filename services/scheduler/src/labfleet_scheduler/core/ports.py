"""Host ports for `-p 80`, `-P` and ranges: the lowest free one."""

from labfleet_proto.containers import PortBinding
from labfleet_proto.errors import NoRoomError


def fill(
    bindings: tuple[PortBinding, ...], taken: set[tuple[str, int]], first: int, last: int
) -> tuple[PortBinding, ...]:
    """Give each binding without a host port one. Raises NoRoomError when the range is used up.

    Args:
        bindings: As asked for; one with a range of its own gets a port of that.
        taken: Protocol and host port of every container of the fleet.
        first: Lowest port of the range.
        last: Highest port of the range, included.
    """
    busy = set(taken) | {(b.protocol, b.host_port) for b in bindings if b.host_port is not None}
    filled = []
    for binding in bindings:
        port = binding.host_port
        if port is None:
            own = binding.host_port_first is not None and binding.host_port_last is not None
            low, high = (
                (binding.host_port_first or 0, binding.host_port_last or 0)
                if own
                else (first, last)
            )
            port = next(
                (p for p in range(low, high + 1) if (binding.protocol, p) not in busy), None
            )
            if port is None:
                raise NoRoomError(f"no host port is left in {low}-{high}: all ports are allocated")
            busy.add((binding.protocol, port))
        filled.append(binding.model_copy(update={"host_port": port}))
    return tuple(filled)
