"""What `docker run` and `docker update` both say: limits, and what becomes of a container that ends."""

from labfleet_api.core.body import Body


class RestartPolicyBody(Body):
    """What becomes of a container that ends by itself."""

    Name: str = ""
    MaximumRetryCount: int = 0


class LimitsBody(Body):
    """The part of `HostConfig` that may change while a container is there."""

    Memory: int = 0
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    KernelMemory: int = 0
    """Without effect."""
    NanoCpus: int = 0
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuShares: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    BlkioWeight: int = 0
    PidsLimit: int | None = None
    RestartPolicy: RestartPolicyBody | None = None
