"""Images between fleets without a network: `labfleet image export` and `import`."""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from labfleet_cli.bundle_file import BundleReader, BundleWriter, opened
from labfleet_cli.bundle_keys import BundleKeys
from labfleet_cli.bundle_layout import (
    INDEX_TYPES,
    Descriptor,
    Image,
    in_oci_words,
    references,
    split_name,
)
from labfleet_cli.machine import MachineError
from labfleet_cli.registry_client import RegistryClient
from labfleet_proto.errors import InvalidRequestError, LabfleetError

_PLATFORM = ("linux", "amd64")

Tell = Callable[[str], None]


@dataclass
class _Collected:
    """Blobs to write, each once, and where they can be read."""

    blobs: dict[str, tuple[str, Descriptor]]
    manifests: dict[str, tuple[Descriptor, bytes]]


def export_images(
    registry: RegistryClient, names: list[str], path: Path, keys: BundleKeys | None, tell: Tell
) -> None:
    """Write images into a bundle, signed unless `keys` is None. Raises MachineError, httpx.HTTPError."""
    found = _Collected({}, {})
    try:
        images = [_collect(registry, name, found) for name in dict.fromkeys(names)]
        with BundleWriter(path) as bundle:
            bundle.begin(images, keys)
            for descriptor, body in found.manifests.values():
                bundle.add_bytes(descriptor, body)
            for repository, descriptor in found.blobs.values():
                registry.copy_blob(repository, descriptor, partial(bundle.add, descriptor))
    except LabfleetError as exc:
        raise MachineError(exc.message) from exc
    except (tarfile.TarError, OSError) as exc:
        raise MachineError(f"cannot write {path}: {exc}") from exc
    for image in images:
        tell(f"{image.name} is {image.manifest.digest[7:19]}")


def _collect(registry: RegistryClient, name: str, found: _Collected) -> Image:
    repository, tag = split_name(name)
    answer = registry.manifest(repository, tag)
    if answer is None:
        raise MachineError(f"there is no image {repository}:{tag} in the fleet's store")
    descriptor, body = answer
    if descriptor.media_type in INDEX_TYPES:
        descriptor, body = _of_platform(registry, repository, descriptor, body)
    return Image(repository, tag, _add_manifest(registry, repository, descriptor, body, found))


def _of_platform(
    registry: RegistryClient, repository: str, index: Descriptor, body: bytes
) -> tuple[Descriptor, bytes]:
    """The index if all of its images are here; else the one that the fleet's hosts can run."""
    children = references(index, body)
    answers = {each.digest: registry.manifest(repository, each.digest) for each in children}
    if all(answers.values()):
        return index, body
    for child in children:
        answer = answers[child.digest]
        if answer is not None and child.platform in (_PLATFORM, None):
            return answer
    raise MachineError(f"no image of {repository} for linux/amd64 is in the fleet's store")


def _add_manifest(
    registry: RegistryClient,
    repository: str,
    descriptor: Descriptor,
    body: bytes,
    found: _Collected,
) -> Descriptor:
    """Collect a manifest and all below it; return what it is called in the bundle."""
    children = {}
    for each in references(descriptor, body):
        if each.is_manifest:
            answer = registry.manifest(repository, each.digest)
            if answer is None:
                raise MachineError(f"{each.digest} of {repository} is not in the fleet's store")
            children[each.digest] = _add_manifest(registry, repository, *answer, found)
        else:
            found.blobs.setdefault(each.digest, (repository, each))
    made, body = in_oci_words(descriptor, body, children)
    found.manifests[made.digest] = (made, body)
    return made


def import_images(
    registry: RegistryClient, path: Path, keys: BundleKeys, tell: Tell, *, allow_unsigned: bool
) -> None:
    """Take the images of a bundle into the store; all of it is checked before the first byte is sent.

    Blobs come before the manifests that refer to them and names come last, so what an interruption
    leaves is unnamed and collected. Safe to repeat. Raises MachineError, httpx.HTTPError.
    """
    try:
        with opened(path) as bundle:
            _check_signature(bundle, path, keys, tell, allow_unsigned=allow_unsigned)
            contents = bundle.check()
            known_in: dict[str, str] = {}
            for repository, descriptor in contents.blobs:
                if descriptor.is_manifest:
                    body = bundle.manifest(descriptor)
                    registry.push_manifest(
                        repository, descriptor.digest, descriptor.media_type, body
                    )
                    continue
                chunks, known = bundle.chunks(descriptor), known_in.get(descriptor.digest, "")
                if registry.push_blob(repository, descriptor, chunks, known):
                    tell(f"{descriptor.digest[7:19]}: {descriptor.size >> 10} KiB pushed")
                known_in[descriptor.digest] = repository
            for image in contents.images:
                body = bundle.manifest(image.manifest)
                kind = image.manifest.media_type
                registry.push_manifest(image.repository, image.tag, kind, body)
                tell(f"{image.name} is {image.manifest.digest[7:19]}")
    except InvalidRequestError as exc:
        raise MachineError(f"{path}: {exc.message}") from exc
    except OSError as exc:
        raise MachineError(f"{path}: {exc.strerror or exc}") from exc


def _check_signature(
    bundle: BundleReader, path: Path, keys: BundleKeys, tell: Tell, *, allow_unsigned: bool
) -> None:
    key = bundle.signer(keys.believed())
    if key is not None:
        tell(f"signed by {key.name} ({key.fingerprint[:16]})")
        return
    stranger = bundle.signed_by()[:16]
    if allow_unsigned:
        tell("the bundle's origin is not checked")
    elif stranger:
        raise MachineError(
            f"{path} is signed with a key that this fleet does not trust ({stranger}): "
            "`labfleet image trust add FILE` with the sender's public key"
        )
    else:
        raise MachineError(f"{path} is not signed; --allow-unsigned takes it all the same")
