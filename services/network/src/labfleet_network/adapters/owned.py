"""Network namespaces that belong to a container: owned by a user namespace of its own ids.

A namespace belongs for ever to the user namespace of the process that made it.
"""

import os

from labfleet_chassis.namespace_holder import CLONE_NEWNET, held_namespaces
from labfleet_proto.networks import UserIds


def new_namespace(owner: UserIds) -> int:
    """Return a descriptor of a new network namespace, owned by a new user namespace of these ids.

    Raises OSError.
    """
    with held_namespaces(owner.first, owner.count, CLONE_NEWNET) as there:
        return os.open(there / "net", os.O_RDONLY | os.O_CLOEXEC)
