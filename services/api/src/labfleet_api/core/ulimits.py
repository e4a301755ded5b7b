"""`HostConfig.Ulimits`: docker's names; no host raises its own hard limits for them."""

from collections.abc import Iterable

from labfleet_api.core.host_config import Ulimit as UlimitBody
from labfleet_proto.containers import RLIMITS, Ulimit
from labfleet_proto.errors import InvalidRequestError

_UNLIMITED = -1


def ulimits(bodies: Iterable[UlimitBody]) -> tuple[Ulimit, ...]:
    """Check the limits that were asked for; of two of one name the last counts.

    Raises InvalidRequestError.
    """
    found: dict[str, Ulimit] = {}
    for body in bodies:
        name = body.Name.lower().removeprefix("rlimit_")
        if name not in RLIMITS:
            raise InvalidRequestError(f"invalid ulimit type: {body.Name}")
        if body.Soft < _UNLIMITED or body.Hard < _UNLIMITED:
            raise InvalidRequestError(f"invalid ulimit value: {name}={body.Soft}:{body.Hard}")
        is_over = body.Soft > body.Hard or body.Soft == _UNLIMITED
        if body.Hard != _UNLIMITED and is_over:
            raise InvalidRequestError(
                f"invalid ulimit {name}: ulimit soft limit must be less than or equal to hard "
                f"limit: {body.Soft} > {body.Hard}"
            )
        found[name] = Ulimit(name=name, soft=body.Soft, hard=body.Hard)
    return tuple(found.values())
