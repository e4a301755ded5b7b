"""The default container whose OCI document `golden/default_container.json` records.

What a container may do is a reviewed decision: after a change that is meant,
`python -m tests.unit.runtime_agent.default_container` writes the document anew, and the difference is read.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.proto.records import container_spec

from labfleet_runtime_agent.core.spec import HostPart, Identity, build

GOLDEN = Path(__file__).parent / "golden" / "default_container.json"
ROOT = Identity(0, 0, (), "/root")
STUDENT = Identity(1000, 1000, (10,), "/home/student")

_HOST_PART = HostPart(
    rootfs="/var/lib/labfleet/c/root",
    uid_base=1_065_536,
    netns_path="/run/netns/lf-c",
    sysfs_path="/run/labfleet/sys",
    files={"/etc/hosts": "/var/lib/labfleet/c/hosts"},
    volumes=(),
    hard_nofile=1_048_576,
)


def host_part(**fields: Any) -> HostPart:
    """What a host adds to the default container."""
    return replace(_HOST_PART, **fields)


def built(host: HostPart = _HOST_PART, who: Identity = ROOT, **spec: Any) -> dict[str, Any]:
    """The OCI document of a container with these fields of its spec."""
    return build(container_spec(**spec), host, who)


def text_of(document: dict[str, Any]) -> str:
    """A document as the golden file holds it."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(text_of(built()))
