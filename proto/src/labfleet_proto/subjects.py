"""Names of subjects on the bus. Never build one by hand at the call site."""

from labfleet_proto.ids import HostId, TenantId
from labfleet_proto.jobs import Service

ANY = "any"
"""The host token of services that run once a fleet (or as a queue group)."""


def job(service: Service, host: HostId | None, kind: str) -> str:
    """Subject of a prompt job: `job.<service>.<host or any>.<kind>`."""
    return f"job.{service}.{host or ANY}.{kind}"


def jobs_of(service: Service, host: HostId | None) -> str:
    """Subject filter of all prompt jobs to one instance."""
    return f"job.{service}.{host or ANY}.*"


def ping(service: Service) -> str:
    """Subject on which every instance of a service answers with its `Pong`."""
    return f"ping.{service}"


PING_ALL = "ping.all"
"""Subject on which every service instance answers."""


def event(tenant: TenantId, kind: str, subject: str) -> str:
    """Subject of a docker event: `event.<tenant>.<type>.<id>`."""
    return f"event.{tenant}.{kind}.{subject}"


def events_of(tenant: TenantId | None) -> str:
    """Subject filter of one tenant's events, or of all."""
    return f"event.{tenant or '*'}.>"
