"""Named volumes whose home is this host: plain directories with container ids."""

import asyncio
import shutil
from pathlib import Path

from labfleet_proto.errors import ConflictError
from labfleet_proto.ids import TenantId


class VolumeStore:
    """Volumes below `<state>/volumes/<tenant>/<name>/data`."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "volumes"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._dir.chmod(0o711)

    def make(self, tenant: TenantId, name: str) -> tuple[Path, bool]:
        """Return the volume's data directory, making it if need be, and whether it is empty."""
        data = self._dir / tenant / name / "data"
        data.mkdir(parents=True, exist_ok=True)
        for path in (data.parent, data.parent.parent):
            path.chmod(0o711)
        return data, not any(data.iterdir())

    async def remove(self, tenant: TenantId, name: str) -> None:
        """Delete a volume's files; absent is success. Raises ConflictError if that fails."""
        path = self._dir / tenant / name
        if not path.exists():
            return
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        if path.exists():
            raise ConflictError(f"remove {name}: volume is in use")

    def all(self) -> set[tuple[str, str]]:
        """Tenant and name of each volume here."""
        return {
            (volume.parent.name, volume.name) for volume in self._dir.glob("*/*") if volume.is_dir()
        }
