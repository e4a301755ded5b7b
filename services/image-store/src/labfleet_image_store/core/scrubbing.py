"""When the store's blobs are read again, in which order, how fast, and what is asked to heal them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labfleet_image_store.core.manifests import Descriptor, Manifest
from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import FETCHED, TagRecord, familiar_repository, owner_of
from labfleet_proto.layers import BlobState, LayerCopy


@dataclass(frozen=True)
class Progress:
    """How far a pass has come; kept on disk, so that the next life of the store goes on there."""

    begun_at_s: float = 0.0
    last: str = ""
    """Digest that was read last; empty before the first one."""
    is_over: bool = True


def is_due(progress: Progress, now_s: float, every_s: float) -> bool:
    """Whether to read on: a pass is to be finished, or the last one began long enough ago."""
    return not progress.is_over or not 0 <= now_s - progress.begun_at_s < every_s


def left(digests: Sequence[Digest], last: str) -> list[Digest]:
    """What a pass has still to read; blobs that came meanwhile and lie behind wait for the next one."""
    return [digest for digest in sorted(digests) if digest > last]


def pause_s(read_bytes: int, took_s: float, bytes_per_s: float) -> float:
    """How long to rest after a piece, so that the rate stays below the limit."""
    return max(read_bytes / bytes_per_s - took_s, 0.0)


def retry_s(tries: int) -> float:
    """How long to wait until the sources are asked once more for a damaged blob."""
    return float(min(2 * 2**tries, 600))


@dataclass(frozen=True)
class Way:
    """Where a repository's blobs have come from."""

    registry: str
    path: str
    repository: str
    """The store's own name of the repository that refers to the blob."""


def ways(repositories: Iterable[str], tags: Iterable[TagRecord]) -> list[Way]:
    """Registries that may have the blobs of some repositories: those from which they were fetched.

    A name alone leads nowhere: whoever pushes may choose it, and no registry need hear of it.
    """
    wanted = set(repositories)
    found = []
    for repository in sorted(wanted):
        if owner_of(repository) == FETCHED:
            registry, _, path = familiar_repository(repository).partition("/")
            found.append(Way(registry.partition("_")[0], path, repository))
    for tag in tags:
        if tag.upstream and tag.repository in wanted and owner_of(tag.repository) != FETCHED:
            name = familiar_repository(tag.repository)
            path = name.removeprefix(f"{tag.upstream}/")
            found.append(Way(tag.upstream, path, tag.repository))
    return list(dict.fromkeys(found))


def hosts_with(copies: Iterable[LayerCopy], failed: Mapping[HostId, float]) -> list[HostId]:
    """Hosts that have all of a blob; those that have failed come last, the latest one at the end.

    Args:
        copies: What hosts say of the blob.
        failed: When a host failed last.
    """
    whole = {copy.host for copy in copies if copy.blob is BlobState.WHOLE}
    return sorted(whole, key=lambda host: (failed.get(host, float("-inf")), host))


def descriptor_of(digest: str, manifests: Iterable[Manifest]) -> Descriptor | None:
    """What the manifests say of a blob, its size above all; None where none names it."""
    for manifest in manifests:
        parts = [*manifest.layers, *([manifest.config] if manifest.config is not None else [])]
        for part in parts:
            if part.digest == digest:
                return part
    return None
