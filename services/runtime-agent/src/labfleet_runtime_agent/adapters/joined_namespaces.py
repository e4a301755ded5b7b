"""Namespaces of a running container, held open for another one that joins them."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from labfleet_proto.errors import ConflictError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters.cgroups import Cgroups
from labfleet_runtime_agent.adapters.conmon import Runtime

Kind = Literal["pid", "ipc"]


@contextlib.contextmanager
def held(
    runtime: Runtime, cgroups: Cgroups, wishes: Mapping[Kind, ContainerId], *, with_ids: bool
) -> Iterator[dict[str, str]]:
    """Paths of namespaces by their kinds, good within the block.

    Args:
        runtime: crun of this host.
        cgroups: Say whose process it is: a pid may be another's by now.
        wishes: Kind, such as `pid`, to the container whose namespace it is to be.
        with_ids: The user namespace too; all of `wishes` are in the same one.

    Raises ConflictError in docker's words for a container that does not run.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, str] = {}
        for kind, other in wishes.items():
            kinds = (kind, "user") if with_ids else (kind,)
            words = f"can't join IPC of container {other}: " if kind == "ipc" else ""
            try:
                opened = _opened(runtime.bundle_of(other), kinds, stack)
            except (OSError, ValueError) as exc:
                raise ConflictError(f"{words}container {other} is not running") from exc
            if opened[0] not in cgroups.pids(other):
                raise ConflictError(f"{words}container {other} is not running")
            found |= opened[1]
        yield found


def _opened(
    bundle: Path, kinds: Collection[str], stack: contextlib.ExitStack
) -> tuple[int, dict[str, str]]:
    """The first process of a container, and its namespaces."""
    pid = int((bundle / "init.pid").read_text())
    found = {}
    for kind in kinds:
        descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        found[kind] = f"/proc/{os.getpid()}/fd/{descriptor}"
    return pid, found
