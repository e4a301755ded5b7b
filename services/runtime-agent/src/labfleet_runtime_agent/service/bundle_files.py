"""Files of names that a bundle holds and its container sees: they are its own to write."""

import os
from pathlib import Path

from labfleet_proto.containers import ContainerRecord
from labfleet_proto.networks import InterfaceReady
from labfleet_runtime_agent.adapters import host_facts
from labfleet_runtime_agent.core import name_files


def write(
    bundle: Path, record: ContainerRecord, interface: InterfaceReady, base: int
) -> dict[str, str]:
    """Write hosts, hostname and resolv.conf; return where each is to be seen, and its path here."""
    spec = record.spec
    bundle.mkdir(mode=0o711, exist_ok=True)
    texts = {
        "/etc/hosts": name_files.hosts(spec, interface.endpoints),
        "/etc/hostname": f"{spec.hostname}\n",
        "/etc/resolv.conf": name_files.resolv_conf(spec, interface),
    }
    if spec.shares_with_host("network"):
        texts |= host_facts.name_files(spec)
    found = {}
    for target, text in texts.items():
        path = bundle / target.rpartition("/")[2]
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, base, base)
        found[target] = str(path)
    return found
