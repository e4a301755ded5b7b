"""Which repository refers to which blob: an empty file `links/<repository>/<digest>` for each reference.

Whether the blob is here is `BlobFiles`'s concern, and so is who works when: what changes here is called
with its lock held.
"""

import contextlib
import os
from pathlib import Path

from labfleet_chassis.durable_files import flush_directory, make_directory
from labfleet_image_store.core.collecting import Link


class Links:
    """References below one directory. All of it blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def _folder(self, repository: str) -> Path:
        return self._directory / repository.replace("/", "%")

    def _path(self, repository: str, digest: str) -> Path:
        return self._folder(repository) / digest.removeprefix("sha256:")

    # -- reading

    def refers(self, repository: str, digest: str) -> bool:
        """Whether the repository refers to the blob, be it here or damaged."""
        return self._path(repository, digest).exists()

    def knows(self, repository: str) -> bool:
        """Whether the repository refers to anything."""
        folder = self._folder(repository)
        return folder.is_dir() and any(folder.iterdir())

    def any_with(self, prefix: str, digest: str) -> str | None:
        """A repository whose name begins so and that refers to the blob; None if there is none."""
        name = digest.removeprefix("sha256:")
        for folder in self._directory.iterdir():
            repository = folder.name.replace("%", "/")
            if repository.startswith(prefix) and (folder / name).exists():
                return repository
        return None

    def repositories(self) -> list[str]:
        """All that refer to anything."""
        return [
            folder.name.replace("%", "/")
            for folder in sorted(self._directory.iterdir())
            if any(folder.iterdir())
        ]

    def linkers(self, digest: str) -> list[str]:
        """Repositories that refer to a blob."""
        found = self._directory.glob(f"*/{digest.removeprefix('sha256:')}")
        return sorted(path.parent.name.replace("%", "/") for path in found)

    def of(self, repository: str) -> list[str]:
        """Digests of all that a repository refers to."""
        folder = self._folder(repository)
        return [f"sha256:{path.name}" for path in folder.iterdir()] if folder.is_dir() else []

    def all(self) -> list[Link]:
        """Every reference."""
        found = []
        for folder in self._directory.iterdir():
            repository = folder.name.replace("%", "/")
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append(Link(repository, f"sha256:{path.name}", path.stat().st_mtime))
        return found

    # -- writing

    def renew(self, repository: str, digest: str, now_s: float) -> bool:
        """Make a reference, or tell the collector that it is wanted; True if it is new, and not flushed yet."""
        path = self._path(repository, digest)
        is_new = not path.exists()
        make_directory(path.parent)
        path.touch()
        os.utime(path, (now_s, now_s))
        return is_new

    def remove(self, repository: str, digest: str) -> bool:
        """Take a reference away; False if there was none."""
        try:
            self._path(repository, digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def remove_all(self, repository: str) -> int:
        """Take all references of a repository away; return how many there were."""
        every = list(self._folder(repository).iterdir())
        for path in every:
            path.unlink(missing_ok=True)
        return len(every)

    def remove_stale(self, repository: str, digest: str, oldest_s: float) -> None:
        """Take a reference away unless it was renewed since."""
        path = self._path(repository, digest)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest_s:
                path.unlink()

    def flush(self, repository: str) -> None:
        """What was made or taken of a repository's references stays so over a power cut."""
        flush_directory(self._folder(repository))

    def flush_all(self) -> None:
        """So of every repository."""
        for folder in list(self._directory.iterdir()):
            flush_directory(folder)
