"""Which hosts have which layers unpacked, and so how much of an image each would have to fetch."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import LayerRef
from labfleet_proto.layers import LayerCopy


@dataclass
class ImageCopies:
    """The hosts of each layer. Noting the same facts again changes nothing."""

    _hosts: dict[Digest, set[HostId]] = field(default_factory=dict)

    def note(self, copy: LayerCopy) -> None:
        """Take what a host has of a layer now."""
        if copy.is_unpacked:
            self._hosts.setdefault(copy.digest, set()).add(copy.host)
        else:
            self.forget(copy.digest, copy.host)

    def forget(self, digest: Digest, host: HostId) -> None:
        """The host has nothing of the layer any more; unknown is nothing."""
        hosts = self._hosts.get(digest)
        if hosts is not None:
            hosts.discard(host)
            if not hosts:
                del self._hosts[digest]

    def present(self, layers: Sequence[LayerRef]) -> dict[HostId, int]:
        """Compressed bytes of an image's layers that each host has; hosts with none are left out."""
        found: dict[HostId, int] = {}
        for digest, size in _sizes(layers).items():
            for host in self._hosts.get(digest, ()):
                found[host] = found.get(host, 0) + size
        return found


def image_bytes(layers: Sequence[LayerRef]) -> int:
    """Compressed bytes of an image's layers, each once."""
    return sum(_sizes(layers).values())


def _sizes(layers: Sequence[LayerRef]) -> dict[Digest, int]:
    return {layer.digest: layer.size_bytes for layer in layers}
