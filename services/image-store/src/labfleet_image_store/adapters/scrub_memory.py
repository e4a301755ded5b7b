"""How far the scrubber has come, on disk."""

import dataclasses
import json
from pathlib import Path

from labfleet_image_store.core.scrubbing import Progress


class ScrubMemory:
    """One small file. It is not flushed: what a power cut takes of it is read once more."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "scrub.json"

    def load(self) -> Progress:
        """What was saved last; nothing if that cannot be read. Blocks."""
        try:
            return Progress(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return Progress()

    def save(self, progress: Progress) -> None:
        """Keep it. Blocks. Raises OSError."""
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(dataclasses.asdict(progress)))
        aside.rename(self._path)
