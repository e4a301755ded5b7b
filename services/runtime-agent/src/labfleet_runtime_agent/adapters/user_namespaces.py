"""The user namespace of a container: made with its network namespace (ADR 0014), joined, and checked."""

import contextlib
import os
from collections.abc import Iterator

from labfleet_proto.errors import InternalError
from labfleet_proto.networks import InterfaceReady
from labfleet_runtime_agent.adapters import kernel
from labfleet_runtime_agent.adapters.processes import read_proc
from labfleet_runtime_agent.core.id_range import IDS_PER_CONTAINER


@contextlib.contextmanager
def joined(interface: InterfaceReady) -> Iterator[str]:
    """Path of the user namespace that owns a container's network; empty if that is another's.

    Good within the block. Raises InternalError.
    """
    if interface.owner is None:
        yield ""
        return
    with contextlib.ExitStack() as stack:
        try:
            userns = stack.enter_context(kernel.owner_of(interface.netns_path))
        except OSError as exc:
            raise InternalError(f"cannot join a network namespace: {exc}") from exc
        yield f"/proc/{os.getpid()}/fd/{userns}"


def check_ids(pid: int, base: int) -> None:
    """A container's first process has the ids of its range and no others. Raises InternalError."""
    for name in ("uid_map", "gid_map"):
        found = read_proc(f"/proc/{pid}/{name}").decode().split()
        if found != ["0", str(base), str(IDS_PER_CONTAINER)]:
            raise InternalError(f"the {name} of a new container is {' '.join(found)}")
