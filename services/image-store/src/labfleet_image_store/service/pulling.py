"""`docker pull`: an image from the store itself, from what was fetched before, or from an upstream."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from labfleet_chassis.caller import caller_tenant
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_image_store.core import platforms, pull_lines, references
from labfleet_image_store.core import upstreams as core
from labfleet_image_store.core.manifests import Descriptor, layer_refs
from labfleet_image_store.core.platforms import Machine
from labfleet_image_store.core.pull_lines import Line
from labfleet_image_store.core.references import Reference
from labfleet_image_store.core.upstreams import Route
from labfleet_image_store.service.events import Events
from labfleet_image_store.service.library import Library
from labfleet_image_store.service.remote import Remote
from labfleet_image_store.service.upstreams import NoneHasItError
from labfleet_proto.buckets import tag_key
from labfleet_proto.errors import InvalidRequestError, LabfleetError, NotFoundError
from labfleet_proto.image_streams import PullImage
from labfleet_proto.images import (
    ImageDetail,
    ManifestRecord,
    TagRecord,
    own_repository,
    owner_of,
    unnamed_repository,
)
from labfleet_proto.upstreams import (
    HUB,
    DescribeRemote,
    FetchImage,
    RemoteDescription,
    RemotePlatform,
)

Tell = Callable[[Line], Awaitable[None]]

_LAYERS_AT_ONCE = 3
"""Of one image, as docker has it."""
_IMAGE_CONFIGS = ("image.config.v1+json", "container.image.v1+json")


@dataclass(frozen=True)
class _Wish:
    """One image that is wanted."""

    reference: Reference
    registry: str
    path: str
    machine: Machine
    is_machine_asked: bool

    @property
    def label(self) -> str:
        """Tag or digest."""
        return self.reference.tag or self.reference.digest or ""

    @property
    def shown(self) -> str:
        """The repository as the first line has it."""
        return core.remote_paths(self.registry, self.path)[0]


class Puller:
    """Pulls for the caller's tenant. Doing it again finds the image there."""

    def __init__(self, library: Library, remote: Remote, events: Events) -> None:
        self._library = library
        self._catalogue = library.catalogue
        self._remote = remote
        self._events = events

    async def pull(self, request: PullImage, tell: Tell) -> None:
        """Pull a tag, a digest or all tags. Raises LabfleetError with docker's words."""
        machine = platforms.parse(request.platform)
        joint = "@" if ":" in request.tag else ":"
        text = f"{request.name}{joint}{request.tag}" if request.tag else request.name
        reference = self._library.parse(text)
        registry, path = references.split_registry(reference.repository)
        is_whole = "@" in text or ":" in text.rpartition("/")[2]
        route = self._remote.upstreams.route(registry, request.login)
        if is_whole:
            wish = _Wish(reference, registry, path, machine, bool(request.platform))
            is_new = await self._one(wish, route, tell)
            await tell(pull_lines.status(reference.familiar, is_new=is_new))
            return
        is_new = False
        for tag in await self._tags(reference.repository, registry, path, route):
            each = Reference(reference.repository, tag, None)
            wish = _Wish(each, registry, path, machine, bool(request.platform))
            is_new = await self._one(wish, route, tell) or is_new
        await tell(pull_lines.status(reference.repository, is_new=is_new))

    async def fetch(self, wish: FetchImage) -> ImageDetail:
        """Find an image, pulling it if it is not there. Raises LabfleetError."""

        async def nobody(_line: Line) -> None:
            return

        try:
            return self._library.detail(wish.reference)
        except NotFoundError:
            reference = self._library.parse(wish.reference)
            tag = reference.tag or reference.digest or ""
            await self.pull(PullImage(name=reference.repository, tag=tag), nobody)
            return self._library.detail(wish.reference)

    async def describe(self, wish: DescribeRemote) -> RemoteDescription:
        """What the store, or else an upstream, says of a reference. Raises LabfleetError."""
        reference = self._library.parse(wish.reference)
        registry, path = references.split_registry(reference.repository)
        asked = _Wish(reference, registry, path, platforms.OWN, is_machine_asked=False)
        route = self._remote.upstreams.route(registry, wish.login)
        here = self._here(asked)
        if here is not None and (route is None or self._is_settled(asked, here[1])):
            config = here[0].config
            own = RemotePlatform(
                architecture=str(config.get("architecture") or platforms.OWN.architecture),
                os=str(config.get("os") or platforms.OWN.os),
            )
            return RemoteDescription(
                media_type=here[0].manifest_type,
                digest=here[0].pin.manifest_digest,
                size_bytes=here[0].manifest_bytes,
                platforms=(own,),
            )
        if route is None:
            if registry != HUB:
                raise core.not_open(registry, reference.repository)
            raise NotFoundError(f"manifest unknown: {wish.reference} is not in the image store")
        return await self._remote.describe(wish, route, reference)

    async def _tags(
        self, repository: str, registry: str, path: str, route: Route | None
    ) -> list[str]:
        own = [name.rpartition(":")[2] for name in self._library.names_of_repository(repository)]
        if route is None:
            if not own:
                raise self._unknown(registry, repository)
            return own
        try:
            return sorted({*own, *(await self._remote.tags(route, path))})
        except NoneHasItError as exc:
            if own:
                return own
            raise core.verdict(repository, repository, exc.troubles) from exc

    # -- one tag or digest

    async def _one(self, wish: _Wish, route: Route | None, tell: Tell) -> bool:
        here = self._here(wish)
        if here is not None and (route is None or self._is_settled(wish, here[1])):
            await self._say_present(wish, here[0], tell)
            is_new = False
        elif route is None:
            raise self._absent(wish)
        else:
            is_new = await self._from_upstream(wish, route, here, tell)
        name = wish.reference.familiar
        await self._events.tell("pull", name, name)
        return is_new

    def _here(self, wish: _Wish) -> tuple[ImageDetail, TagRecord | None] | None:
        """The image as the tenant sees it already, for the machine that it is wanted for."""
        try:
            detail = self._library.detail(wish.reference.familiar)
        except LabfleetError:
            return None
        config = detail.config
        has = (config.get("os") or "linux", config.get("architecture") or "amd64")
        if wish.is_machine_asked and has != (wish.machine.os, wish.machine.architecture):
            return None
        tag = wish.reference.tag
        known = self._catalogue.tags.get(tag_key(detail.pin.repository, tag)) if tag else None
        return detail, known

    def _is_settled(self, wish: _Wish, tag: TagRecord | None) -> bool:
        """Whether no upstream need be asked: a digest, or a name that our own people gave."""
        return wish.reference.digest is not None or tag is None or not tag.upstream

    async def _say_present(self, wish: _Wish, detail: ImageDetail, tell: Tell) -> None:
        await tell(pull_lines.pulling(wish.shown, wish.label))
        for layer in detail.pin.layers:
            await tell(pull_lines.layer("Already exists", layer.digest))
        await tell(pull_lines.digest(detail.pin.manifest_digest))

    def _absent(self, wish: _Wish) -> LabfleetError:
        """Docker's words for an image that is not in the store when no upstream may be asked."""
        familiar = wish.reference
        if self._library.names_of_repository(familiar.repository):
            return NotFoundError(
                f"manifest for {familiar.familiar} not found: manifest unknown: manifest unknown"
            )
        return self._unknown(wish.registry, familiar.repository)

    def _unknown(self, registry: str, repository: str) -> LabfleetError:
        if registry != HUB:
            return core.not_open(registry, repository)
        return NotFoundError(core.denied(repository))

    async def _from_upstream(
        self,
        wish: _Wish,
        route: Route,
        here: tuple[ImageDetail, TagRecord | None] | None,
        tell: Tell,
    ) -> bool:
        """Fetch what is missing and give it its name; whether anything is new."""
        try:
            top = await self._remote.manifest(route, wish.path, wish.label)
        except NoneHasItError as exc:
            if here is not None and exc.may_be_there:  # offline: what there is must do
                await self._say_present(wish, here[0], tell)
                return False
            raise await self._refusal(route, wish, exc) from exc
        await tell(pull_lines.pulling(wish.shown, wish.label))
        record = await self._of_machine(route, wish, top)
        self._check_kind(record)
        self._check_quota(record)
        await self._layers(route, wish, record, tell)
        named = top if record.digest == top.digest or wish.machine == platforms.OWN else record
        is_new = await self._name(wish, named)
        await self._warn(wish, record, tell)
        await tell(pull_lines.digest(top.digest))
        return is_new

    async def _refusal(self, route: Route, wish: _Wish, exc: NoneHasItError) -> LabfleetError:
        """Docker's words; those for a repository that is nowhere differ from those for a tag."""
        troubles = exc.troubles
        if not exc.may_be_there:
            try:
                await self._remote.tags(route, wish.path)
            except NoneHasItError as nowhere:
                troubles = nowhere.troubles
        return core.verdict(wish.reference.familiar, wish.reference.repository, troubles)

    async def _of_machine(self, route: Route, wish: _Wish, top: ManifestRecord) -> ManifestRecord:
        """The manifest for the machine that is wanted. Raises NotFoundError."""
        index = self._catalogue.manifest(top.digest)
        if index.config is not None:
            return top
        child = platforms.child_for(index, wish.machine)
        try:
            return await self._remote.manifest(route, wish.path, child.digest)
        except NoneHasItError as exc:
            raise core.verdict(
                wish.reference.familiar, wish.reference.repository, exc.troubles
            ) from exc

    async def _layers(self, route: Route, wish: _Wish, record: ManifestRecord, tell: Tell) -> None:
        """Fetch config and layers. Raises LabfleetError."""
        manifest = self._catalogue.manifest(record.digest)
        slots = asyncio.Semaphore(_LAYERS_AT_ONCE)
        own = set(manifest.blobs)
        layers = list(
            {each.digest: each for each in manifest.layers if each.digest in own}.values()
        )
        missing = []
        for layer in layers:
            if await self._remote.has(route, record.repository, layer.digest):
                await tell(pull_lines.layer("Already exists", layer.digest))
            else:
                await tell(pull_lines.layer("Pulling fs layer", layer.digest))
                missing.append(layer)
        try:
            async with TaskGroup() as tasks:
                if manifest.config is not None:
                    config = manifest.config
                    tasks.create_task(
                        self._remote.blob(route, wish.path, config, record.repository)
                    )
                for layer in missing:
                    tasks.create_task(self._layer(route, wish, layer, record, slots, tell))
        except ExceptionGroup as group:
            raise first_of(group) from group
        self._check(record)

    def _check_kind(self, record: ManifestRecord) -> None:
        """Raise InvalidRequestError for what is no image, such as a chart."""
        config = self._catalogue.manifest(record.digest).config
        if config is None or not config.media_type.endswith(_IMAGE_CONFIGS):
            kind = config.media_type if config is not None else record.media_type
            raise InvalidRequestError(f"unsupported media type {kind}: it is no image")

    def _check_quota(self, record: ManifestRecord) -> None:
        """Raise QuotaExceededError before anything is fetched that the tenant may not have."""
        manifest = self._catalogue.manifest(record.digest)
        parts = [*manifest.layers, *([manifest.config] if manifest.config is not None else [])]
        wanted = {part.digest: part.size for part in parts} | {record.digest: record.size_bytes}
        self._catalogue.quotas.check(unnamed_repository(caller_tenant()), wanted)

    def _check(self, record: ManifestRecord) -> None:
        """Raise InvalidRequestError for a config that does not belong to its layers."""
        manifest = self._catalogue.manifest(record.digest)
        if manifest.config is None:
            return
        try:
            config = self._catalogue.config_of(manifest.config.digest)
            diff_ids = list(config["rootfs"]["diff_ids"])
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            self._catalogue.forget(manifest.config.digest)
            raise InvalidRequestError(f"the image's config is invalid: {exc!r}") from exc
        layer_refs(manifest, diff_ids)

    async def _layer(
        self,
        route: Route,
        wish: _Wish,
        layer: Descriptor,
        record: ManifestRecord,
        slots: asyncio.Semaphore,
        tell: Tell,
    ) -> None:
        async def progress(current: int) -> None:
            await tell(pull_lines.downloading(layer.digest, current, layer.size))

        if slots.locked():
            await tell(pull_lines.layer("Waiting", layer.digest))
        async with slots:
            await self._remote.blob(route, wish.path, layer, record.repository, progress)
        for word in ("Verifying Checksum", "Download complete", "Pull complete"):
            await tell(pull_lines.layer(word, layer.digest))

    async def _name(self, wish: _Wish, record: ManifestRecord) -> bool:
        """Let the tenant's own name lead to it; whether it did not before."""
        tenant, reference = caller_tenant(), wish.reference
        places = self._catalogue.readable_as(tenant, reference.repository)
        own = own_repository(tenant, reference.repository)
        try:
            before = self._catalogue.first_of(places, reference.tag or reference.digest or "")
        except NotFoundError:
            before = None
        is_same = before is not None and before.digest == record.digest
        if before is not None and is_same and owner_of(before.repository) != tenant:
            return False  # shared by the operators already
        await self._catalogue.copy(record, own)
        if reference.tag is not None:
            await self._catalogue.tag(own, reference.tag, record.digest, upstream=wish.registry)
        return not is_same

    async def _warn(self, wish: _Wish, record: ManifestRecord, tell: Tell) -> None:
        """An image that is for one machine only is taken for another, with docker's warning."""
        manifest = self._catalogue.manifest(record.digest)
        if manifest.config is None or not wish.is_machine_asked:
            return
        config = self._catalogue.config_of(manifest.config.digest)
        has = Machine(str(config.get("os") or "linux"), str(config.get("architecture") or "amd64"))
        if (has.os, has.architecture) != (wish.machine.os, wish.machine.architecture):
            await tell(
                pull_lines.warning(
                    f"image with reference {wish.reference.familiar} was found but its platform "
                    f"({has}) does not match the specified platform ({wish.machine})"
                )
            )
