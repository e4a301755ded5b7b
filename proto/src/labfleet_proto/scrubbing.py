"""Whether the image store's blobs are still what their digests say: asked, and looked at now."""

from labfleet_proto.ids import Digest
from labfleet_proto.images import familiar_repository, is_unnamed
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing


class DamagedBlob(Message):
    """A blob that is set aside: nobody gets it until it is healed."""

    digest: Digest
    size_bytes: int
    """Of the damaged file."""
    found_at_s: float
    repositories: tuple[str, ...] = ()
    """The store's own names of those that refer to it."""

    @property
    def names(self) -> str:
        """They, as people know them; the first twenty."""
        found = {
            "images without a name" if is_unnamed(each) else familiar_repository(each)
            for each in self.repositories
        }
        return ", ".join(sorted(found)[:20])


class ScrubState(Message):
    """The pass that goes on, or the last one."""

    number: int
    """Of the pass, since the store began; 0 if there was none."""
    is_over: bool
    blobs: int = 0
    """Read so far."""
    bytes_read: int = 0
    found: tuple[Digest, ...] = ()
    """Damaged ones that this pass found."""
    healed: tuple[Digest, ...] = ()
    """Of all that were damaged, those that are whole again since this pass began."""
    damaged: tuple[DamagedBlob, ...] = ()
    """Those that are set aside now, whoever found them."""


class ImagesCheck(Message):
    """The image store's own findings."""

    findings: tuple[str, ...]


START_SCRUB = JobKind("start_scrub", "image-store", Nothing, ScrubState)
"""Read every blob now, as fast as the disk does; one pass at a time, so that a repetition joins it."""
SCRUB_STATE = JobKind("scrub_state", "image-store", Nothing, ScrubState)
CHECK_IMAGES = JobKind("check_images", "image-store", Nothing, ImagesCheck, timeout_s=30.0)
