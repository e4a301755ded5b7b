"""Test suites of other projects: fetched by hash into a cache outside of the tree, never changed.

A suite is a source archive (`<name>.source`: one requirement with its hash) and an environment of its own
(`<name>.lock`, made from `<name>.in` by `make lock`).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.farm.environments import PYTHON, cache, digest, making, python_environment, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """A suite as it is run."""

    name: str
    files: tuple[str, ...]
    """Below the source's root; patterns. Each is run by itself, with the images loaded anew: some tests prune."""
    left_out: tuple[str, ...] = ()
    """Tests that wait for the Internet, or write 16 GB; they count as failed."""


_DOCKER_PY = (
    *("api_container", "api_exec", "api_image", "api_volume", "api_network", "api_build"),
    *("api_client", "api_healthcheck", "client", "context_api", "errors", "regression"),
    *("models_containers", "models_images", "models_networks", "models_nodes", "models_resources"),
    "models_volumes",
)
"""All of its integration tests but those of swarm mode and of plugins, which are refused by design."""

SUITES = (
    Suite(
        "docker-py",
        tuple(f"tests/integration/{part}_test.py" for part in _DOCKER_PY),
    ),
    Suite(
        "aiodocker",
        ("tests/test_*.py",),
    ),
    Suite(
        "oras",
        ("oras/tests/test_*.py",),
        (
            "oras/tests/test_oras.py::test_get_many_tags",
            "oras/tests/test_oras.py::test_ssl_no_verify",
            "oras/tests/test_oras.py::test_ssl_verify_fails_if_bad_ca",
            "oras/tests/test_oras.py::test_ssl_verify_fails_fast_if_bad_ca",
            "oras/tests/test_provider.py::test_chunked_push",
        ),
    ),
)


@dataclass(frozen=True)
class Fetched:
    """Where a suite lies."""

    source: Path
    python: Path


def fetch(name: str) -> Fetched:
    """Fetch a suite and its environment unless they are there."""
    environment = python_environment(HERE / f"{name}.lock")
    return Fetched(_source(name), environment / "bin" / "python")


def _source(name: str) -> Path:
    wish = HERE / f"{name}.source"
    target = cache() / f"{name}-source-{digest(wish)}"
    with making(target) as is_missing:
        if is_missing:
            with tempfile.TemporaryDirectory(dir=cache()) as scratch:
                _unpack(wish, Path(scratch)).rename(target)
    return target


def _unpack(wish: Path, scratch: Path) -> Path:
    project = wish.read_text().partition("==")[0]
    pip = [PYTHON, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-binary", project, "--require-hashes", "-r", str(wish), "-d", str(scratch)]
    run(pip)
    (archive,) = scratch.glob("*.tar.gz")
    out = scratch / "out"
    out.mkdir()
    run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(out)])
    (root,) = out.iterdir()
    return root
