"""What a create request asks for that is served in part, or not at all: docker's `Warnings`."""

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.host_config import HostConfigBody

_LACKS = "Your kernel does not support"
_NO_SWAP = (
    f"{_LACKS} swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
)
_NO_SWAPPINESS = (
    f"{_LACKS} memory swappiness capabilities or the cgroup is not mounted. "
    "Memory swappiness discarded."
)


def warnings(body: CreateBody, *, is_operator: bool = False) -> list[str]:
    """Sentences for the client, in docker's words where docker has them."""
    host = body.HostConfig or HostConfigBody()
    said = (
        (
            host.MemorySwap == -1 or host.MemorySwap > host.Memory > 0,
            _NO_SWAP,
        ),
        (
            (host.MemorySwappiness or 0) > 0,
            _NO_SWAPPINESS,
        ),
        (
            bool(host.OomKillDisable),
            f"{_LACKS} OomKillDisable. OomKillDisable discarded.",
        ),
        (
            host.KernelMemory > 0,
            "Specifying a kernel memory limit is deprecated and will be removed in a future release.",
        ),
        (
            not is_operator and bool(host.MaskedPaths or host.ReadonlyPaths),
            "MaskedPaths and ReadonlyPaths are added to the fleet's own, which stay.",
        ),
        (
            bool(host.Annotations),
            "Annotations are kept and have no effect.",
        ),
        (
            host.NetworkMode == "host" and bool(host.PortBindings),
            "Published ports are discarded when using host network mode",
        ),
    )
    return [sentence for is_so, sentence in said if is_so]
