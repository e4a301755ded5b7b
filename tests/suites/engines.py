"""What a suite is run on: a fleet of one host or three, or a dockerd of our own to compare with.

The fleet has a mirror with the images of the suites; dockerd has none, in its network of its own.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import peers
from tests.farm.fleet import running_fleet, sweep_leftovers
from tests.farm.registries import other_registry
from tests.suites import images
from tests.suites.open_door import open_door

from labfleet_proto.ids import OPERATORS

ENGINES = ("1", "3", "dockerd")


@dataclass(frozen=True)
class Engine:
    """An engine with the images of the suites."""

    name: str
    env: dict[str, str]
    version: str
    archives: tuple[Path, ...]

    def load(self) -> None:
        """Load the images that the suites expect: some tests prune."""
        for archive in self.archives:
            _docker(self.env, "load", "-i", str(archive))


@contextlib.contextmanager
def engine(name: str) -> Iterator[Engine]:
    """Start one: `1` and `3` are fleets with as many hosts."""
    with tempfile.TemporaryDirectory(prefix="lfsuite-") as scratch:
        folder = Path(scratch)
        archives = images.write(folder)
        config = folder / "docker"
        config.mkdir()
        # Without one, docker-py keeps its contexts in the folder of the tests, for all runs.
        (config / "config.json").write_text("{}")
        if name == "dockerd":
            peers.sweep()
            with peers.dockerd() as peer:
                yield _ready(name, f"unix://{peer.socket}", config, archives)
        else:
            sweep_leftovers()
            with (
                other_registry(folder / "registry") as registry,
                running_fleet(config, hosts=int(name), suffix=f"-suite{name}") as fleet,
                open_door(fleet.plan.registry, OPERATORS, fleet.plan.fleet_secret) as port,
            ):
                for archive in archives:
                    for tag in images.tags_of(archive):
                        registry.push(archive, f"library/{tag}", named=tag)
                fleet.labfleet("mirror", "add", registry.url)
                store = {"ORAS_HOST": "127.0.0.1", "ORAS_PORT": str(port)}
                yield _ready(name, fleet.url, config, archives, store)


def _ready(
    name: str, url: str, config: Path, archives: list[Path], more: dict[str, str] | None = None
) -> Engine:
    env = {**os.environ, "DOCKER_HOST": url, "DOCKER_CONFIG": str(config), **(more or {})}
    version = _docker(env, "version", "--format", "{{.Server.Version}}")
    return Engine(name, env, version, tuple(archives))


def _docker(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["docker", *words], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
