"""Images as people see them: found by name or id, listed, named, removed."""

from labfleet_chassis.caller import caller_tenant
from labfleet_image_store.adapters.layers import Layers
from labfleet_image_store.core import chains, manifests, naming, references, removal
from labfleet_image_store.core.references import Reference
from labfleet_image_store.core.removal import Name, Users
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_proto.buckets import tag_key
from labfleet_proto.builds import BUILD_REPOSITORY, ShelveBuild, ShelvedBuild, build_tag
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from labfleet_proto.ids import Digest
from labfleet_proto.images import (
    ImageDetail,
    ImagePin,
    ImageRemoved,
    ImageSummary,
    ManifestRecord,
    RemoveImage,
    TagRecord,
    familiar_repository,
    is_unnamed,
    own_repository,
    owner_of,
    unnamed_repository,
)


class Library:
    """The images that the caller's tenant sees (`labfleet_chassis.caller`)."""

    def __init__(self, catalogue: Catalogue, layers: Layers) -> None:
        self.catalogue = catalogue
        self.layers = layers

    # -- finding

    def images(self) -> dict[str, list[ManifestRecord]]:
        """Image ids that the caller sees, with the manifests that lead to them, its own first."""
        found: dict[str, list[ManifestRecord]] = {}
        for record in self.catalogue.visible():
            image = self.catalogue.image_of(record)
            if image is not None:
                found.setdefault(image[0], []).append(record)
        return found

    def parse(self, text: str) -> Reference:
        """Parse a name. Raises InvalidRequestError."""
        return references.parse(text, self.catalogue.own_domains)

    def find(self, text: str) -> tuple[str, list[ManifestRecord], Reference | None]:
        """Find an image by reference, id or unique prefix of an id.

        Returns its id, its manifests, and the reference if it was found by one. Raises NotFoundError,
        ConflictError (ambiguous), InvalidRequestError (malformed).
        """
        try:
            reference = self.parse(text)
            places = self.catalogue.readable_as(caller_tenant(), reference.repository)
            record = self.catalogue.first_of(places, reference.digest or reference.tag or "")
            image = self.catalogue.image_of(record)
            if image is not None:
                return image[0], [record], reference
        except (NotFoundError, InvalidRequestError) as exc:
            prefix = references.id_prefix(text)
            if prefix is None:
                if isinstance(exc, InvalidRequestError):
                    raise
                raise self._missing(text) from exc
        prefix = references.id_prefix(text) or ""
        images = self.images()
        hits = [key for key in images if prefix and key.startswith(f"sha256:{prefix}")]
        if len(hits) > 1:
            raise ConflictError(f"ambiguous image id prefix: {text}")
        if not hits:
            raise self._missing(text)
        return hits[0], images[hits[0]], None

    def _missing(self, text: str) -> NotFoundError:
        try:
            shown = self.parse(text).familiar
        except InvalidRequestError:
            shown = text
        return NotFoundError(f"No such image: {shown}")

    def names_of_repository(self, name: str) -> list[str]:
        """Familiar names with the tags of a repository; none if it is unknown or no name."""
        if not references.is_stored(name):
            return []
        try:
            reference = self.parse(name)
            places = self.catalogue.readable_as(caller_tenant(), reference.repository)
            tags = self.catalogue.tags_of(places)
        except (NotFoundError, InvalidRequestError):
            return []
        return [f"{reference.repository}:{tag}" for tag in tags]

    # -- describing

    def detail(self, text: str) -> ImageDetail:
        """Describe one image. Raises as `find`."""
        image_id, records, reference = self.find(text)
        record = records[0]
        digest = self.catalogue.platform_of(record.repository, record.digest) or record.digest
        manifest = self.catalogue.manifest(digest)
        config = self.catalogue.config_of(image_id)
        layers = manifests.layer_refs(manifest, manifests.diff_ids(config))
        every = self.images()[image_id]
        tags = self._tags(every)
        return ImageDetail(
            pin=ImagePin(
                reference=reference.familiar if reference else text,
                image_id=Digest(image_id),
                repository=record.repository,
                manifest_digest=Digest(digest),
                layers=layers,
            ),
            config=config,
            tags=_shown(tags),
            digests=naming.digests(every),
            size_bytes=sum(self._size(layer.digest, layer.size_bytes) for layer in layers),
            layer_bytes=tuple(self._size(layer.digest, layer.size_bytes) for layer in layers),
            manifest_bytes=self.catalogue.files.size(digest),
            manifest_type=manifest.media_type,
            tagged_at_ns=max((tag.updated_at_ns for tag in tags), default=0),
        )

    def _size(self, digest: str, stored: int) -> int:
        known = self.layers.known(digest)
        return known.unpacked_bytes if known is not None else stored

    def _tags(self, records: list[ManifestRecord]) -> list[TagRecord]:
        """Tags of an image; a shared name that the caller gave to an image of its own is that one's."""
        wanted = {(each.repository, each.digest) for each in records}
        tenant = caller_tenant()
        tags = self.catalogue.tags
        found = []
        for tag in tags.values():
            if (tag.repository, tag.manifest_digest) in wanted:
                own = own_repository(tenant, familiar_repository(tag.repository))
                if tag.repository == own or tags.get(tag_key(own, tag.tag)) is None:
                    found.append(tag)
        return found

    def summaries(self) -> tuple[ImageSummary, ...]:
        """Rows of `docker images`, newest first."""
        images = self.images()
        parts = {image_id: self._parts(records[0]) for image_id, records in images.items()}
        uses: dict[str, int] = {}
        for sizes in parts.values():
            for digest in sizes:
                uses[digest] = uses.get(digest, 0) + 1
        rows = []
        for image_id, records in images.items():
            config = self.catalogue.config_of(image_id)
            sizes = parts[image_id]
            inner = config.get("config") or {}
            rows.append(
                ImageSummary(
                    image_id=Digest(image_id),
                    tags=_shown(self._tags(records)),
                    digests=naming.digests(records),
                    created_at_s=naming.seconds(str(config.get("created") or "")),
                    created_at_ns=naming.nanoseconds(str(config.get("created") or "")),
                    size_bytes=sum(sizes.values()),
                    shared_bytes=sum(size for digest, size in sizes.items() if uses[digest] > 1),
                    labels=dict(inner.get("Labels") or {}),
                    is_own=any(owner_of(each.repository) == caller_tenant() for each in records),
                )
            )
        return tuple(sorted(rows, key=lambda row: -row.created_at_s))

    def _parts(self, record: ManifestRecord) -> dict[str, int]:
        digest = self.catalogue.platform_of(record.repository, record.digest) or record.digest
        layers = self.catalogue.manifest(digest).layers
        return {layer.digest: self._size(layer.digest, layer.size) for layer in layers}

    def blobs(self, record: ManifestRecord) -> list[str]:
        """What an image of this fleet's architecture needs beside its manifest."""
        digest = self.catalogue.platform_of(record.repository, record.digest) or record.digest
        return self.catalogue.manifest(digest).blobs

    def layers_bytes(self) -> int:
        """Bytes of all layers that the caller sees, each once."""
        every: dict[str, int] = {}
        for records in self.images().values():
            every |= self._parts(records[0])
        return sum(every.values())

    # -- naming

    async def add_name(self, source: str, target: str) -> str:
        """Give an image one more name, maybe in another repository; return its id."""
        image_id, records, _ = self.find(source)
        reference = self.parse(target)
        if reference.digest is not None:
            raise InvalidRequestError("refusing to create a tag with a digest reference")
        record = records[0]
        repository = own_repository(caller_tenant(), reference.repository)
        if repository != record.repository:
            await self.catalogue.copy(record, repository)
        await self.catalogue.tag(repository, reference.tag or "latest", record.digest)
        return image_id

    async def shelve_build(self, wish: ShelveBuild) -> ShelvedBuild:
        """Give what a build pushed its names. Raises NotFoundError, InvalidRequestError."""
        pushed = f"{BUILD_REPOSITORY}:{build_tag(wish.build)}"
        image_id, records, _ = self.find(pushed)
        names = tuple(self.parse(name).familiar for name in wish.names)
        for name in names:
            await self.add_name(pushed, name)
        others = [
            each for each in self.images()[image_id] if each.repository != records[0].repository
        ]
        if not others:
            await self.catalogue.copy(records[0], unnamed_repository(caller_tenant()))
        await self.drop_build(wish)
        return ShelvedBuild(image_id=Digest(image_id), names=names)

    async def drop_build(self, wish: ShelveBuild) -> None:
        """Forget what a build pushed; absent is success."""
        repository = own_repository(caller_tenant(), BUILD_REPOSITORY)
        tag = build_tag(wish.build)
        try:
            digest = self.catalogue.record(repository, tag).digest
        except NotFoundError:
            return
        await self.catalogue.untag(repository, tag)
        left = [each for each in self.catalogue.tags.values() if each.repository == repository]
        if all(each.manifest_digest != digest for each in left):
            await self.catalogue.drop_manifest(repository, digest)

    # -- removing

    async def remove(self, wish: RemoveImage) -> ImageRemoved:
        """Remove a name, or by id the image.

        Raises NotFoundError, ConflictError, ForbiddenError (a shared image of the operators).
        """
        image_id, records, reference = self.find(wish.reference)
        tenant = caller_tenant()
        every = [each for each in self.images()[image_id] if owner_of(each.repository) == tenant]
        if not every or owner_of(records[0].repository) != tenant:
            raise ForbiddenError(
                f"image {wish.reference} is shared by the fleet's operators: it is read-only"
            )
        users = Users(wish.running_user, wish.stopped_user)
        names, short = self._names(every), image_id[7:19]
        if reference is not None:
            wanted = Name(reference.repository, reference.tag or "", records[0].digest)
            plan = removal.by_reference(wanted, names, users, force=wish.force, short=short)
        else:
            plan = removal.by_id(names, users, force=wish.force, short=short)
        diff_ids = manifests.diff_ids(self.catalogue.config_of(image_id))
        before = self.layers_bytes()
        if plan.is_dangling:
            await self.catalogue.copy(every[0], unnamed_repository(tenant))
        for name in plan.untagged:
            if name.tag:
                await self.catalogue.untag(own_repository(tenant, name.repository), name.tag)
        doomed = {
            (own_repository(tenant, n.repository), n.digest) for n in plan.untagged if not n.tag
        }
        for record in every:
            is_doomed = (record.repository, record.digest) in doomed
            if is_doomed or not plan.is_kept:
                await self.catalogue.drop_manifest(record.repository, record.digest)
        left = self.images()
        deleted: tuple[str, ...] = ()
        if image_id not in left:  # else a shared one is still to be seen
            others = [manifests.diff_ids(self.catalogue.config_of(other)) for other in left]
            deleted = (image_id, *chains.no_longer_used(diff_ids, others))
        return ImageRemoved(
            image_id=Digest(image_id),
            untagged=tuple(name.familiar for name in plan.untagged),
            deleted=deleted,
            freed_bytes=max(before - self.layers_bytes(), 0),
        )

    def _names(self, records: list[ManifestRecord]) -> list[Name]:
        """Tags and digests by which the caller's own records name an image."""
        found = []
        for record in records:
            if is_unnamed(record.repository):
                continue
            name = familiar_repository(record.repository)
            found += [
                Name(name, tag.tag, record.digest)
                for tag in self.catalogue.tags.values()
                if (tag.repository, tag.manifest_digest) == (record.repository, record.digest)
            ]
            found.append(Name(name, "", record.digest))
        return sorted(found, key=lambda each: (each.repository, not each.tag, each.tag))


def _shown(tags: list[TagRecord]) -> tuple[str, ...]:
    return tuple(sorted({f"{familiar_repository(tag.repository)}:{tag.tag}" for tag in tags}))
