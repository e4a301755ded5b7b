"""What one more process of a running container is: the container's limits and powers, its own words."""

import asyncio
from pathlib import Path

from labfleet_proto.containers import ContainerRecord
from labfleet_proto.runtime import CreateExec
from labfleet_runtime_agent.adapters import host_facts, host_power, image_users
from labfleet_runtime_agent.adapters.processes import ProcessHandle
from labfleet_runtime_agent.core import spec as oci
from labfleet_runtime_agent.core.spec import HostPart


async def oci_process(
    record: ContainerRecord, init: ProcessHandle, asked: CreateExec
) -> dict[str, object]:
    """The `process` object of the OCI runtime-spec. Raises InvalidRequestError, ForbiddenError."""
    spec = record.spec
    user = asked.user or spec.user
    root = Path(f"/proc/{init.pid}/root")
    who = await asyncio.to_thread(image_users.look_up, root, user, spec.group_add)
    named = {entry.partition("=")[0] for entry in asked.env}
    inherited = tuple(entry for entry in spec.env if entry.partition("=")[0] not in named)
    merged = spec.model_copy(
        update={
            "entrypoint": (),
            "command": asked.argv,
            "env": inherited + asked.env,
            "working_dir": asked.working_dir or spec.working_dir,
            "is_tty": asked.is_tty,
            "terminal_size": (0, 0),
            "with_init": False,
        }
    )
    part = HostPart(
        rootfs="",
        uid_base=0,
        netns_path="",
        sysfs_path="",
        files={},
        volumes=(),
        hard_nofile=host_facts.hard_nofile(),
        power=host_power.own(),
    )
    return oci.process(merged, part, who, is_privileged=asked.is_privileged)
