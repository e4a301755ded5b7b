"""Damaged blobs from the registries that they were fetched from."""

from labfleet_chassis.caller import acting_for
from labfleet_image_store.core import scrubbing
from labfleet_image_store.core.scrubbing import Way
from labfleet_image_store.service.fetching import Fetcher
from labfleet_image_store.service.healing import Wanted
from labfleet_image_store.service.larder import Larder
from labfleet_image_store.service.upstreams import NoneHasItError, Upstreams
from labfleet_proto.errors import LabfleetError, UnavailableError
from labfleet_proto.images import FETCHED
from labfleet_proto.upstreams import RegistryLogin

_NOBODY = RegistryLogin()


class MirrorSource:
    """Asks configured upstreams only, with the operators' logins: a client's own login was never kept."""

    name = "mirror"

    def __init__(self, larder: Larder, upstreams: Upstreams, fetcher: Fetcher) -> None:
        self._larder = larder
        self._upstreams = upstreams
        self._fetcher = fetcher

    async def bring(self, wanted: Wanted) -> bool:
        """Fetch it by one way after the other. Raises LabfleetError of the last one that failed."""
        failure: LabfleetError | None = None
        with acting_for(FETCHED):  # nobody's: no registry is asked that operators have not named
            for way in scrubbing.ways(wanted.repositories, self._larder.tags()):
                try:
                    if await self._by(way, wanted):
                        return True
                except LabfleetError as exc:
                    failure = exc
        if failure is not None:
            raise failure
        return False

    async def _by(self, way: Way, wanted: Wanted) -> bool:
        route = self._upstreams.route(way.registry, _NOBODY)
        if route is None:
            return False
        if wanted.is_manifest:
            try:
                found = await self._upstreams.manifest(route, way.path, wanted.digest)
            except NoneHasItError as exc:
                raise UnavailableError(f"no mirror gives manifest {wanted.digest}") from exc
            await self._larder.restore(way.repository, found)
            return True
        if wanted.descriptor is None:
            return False
        await self._fetcher.fetch(route, way.path, wanted.descriptor, way.repository)
        return True
