"""Which of the operators' repositories are everybody's to read: the list of `labfleet image share`."""

from labfleet_chassis.mirror import Mirror
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import owner_of
from labfleet_proto.registry_access import SharedRecord, is_shared_by


class Sharing:
    """Answers from a mirror; remembers until the list changes."""

    def __init__(self, mirror: Mirror[SharedRecord]) -> None:
        self._mirror = mirror
        self._known: dict[str, bool] = {}
        mirror.listen(lambda _key, _entry: self._known.clear())

    def is_shared(self, repository: str) -> bool:
        """Whether every tenant may read it; repositories of tenants never are."""
        if owner_of(repository) != OPERATORS:
            return False
        found = self._known.get(repository)
        if found is None:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            found = is_shared_by(self._mirror.values(), repository)
            self._known[repository] = found
        return found

    def may_read(self, tenant: TenantId, repository: str) -> bool:
        """Whether a tenant may see what is in a repository."""
        return owner_of(repository) == tenant or self.is_shared(repository)


_MOST_KNOWN = 10_000
