"""What tests need of others and this tree does not carry: made once, by hash, in a cache outside of it."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "/usr/bin/python3"
CLIENTS = Path(__file__).parents[1] / "clients"
_LIMIT_S = 900


def cache() -> Path:
    """Directory of everything that is fetched; of one user, for all working copies."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labfleet-tests"
    found.mkdir(parents=True, exist_ok=True)
    return found


def python_environment(lock: Path) -> Path:
    """Virtual environment of a lock file with hashes; made unless it is there."""
    target = cache() / f"{lock.stem}-env-{digest(lock)}"
    with making(target) as is_missing:
        if is_missing:
            run([PYTHON, "-m", "venv", str(target)])
            pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            # The lock names all; pip 23 would choose anew for a name with an extra.
            rules = ["--disable-pip-version-check", "--require-hashes", "--no-deps"]
            run([*pip, *rules, "-r", str(lock)])
    return target


def node_modules(folder: Path) -> Path:
    """Directory with `node_modules` as the lock file of `folder` says, hashes checked by npm."""
    lock = folder / "package-lock.json"
    target = cache() / f"{folder.name}-{digest(lock)}"
    with making(target) as is_missing:
        if is_missing:
            target.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy2(folder / name, target / name)
            npm = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
            run([*npm, "--prefix", str(target)])
    return target


@contextmanager
def making(target: Path) -> Iterator[bool]:
    """Whether a directory must be made; whoever asks meanwhile waits. Half made it is made again."""
    ready = target.with_name(f"{target.name}.ready")
    with target.with_name(f"{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        is_missing = not ready.exists()
        if is_missing:
            shutil.rmtree(target, ignore_errors=True)
        yield is_missing
        ready.touch()


def digest(file: Path) -> str:
    """Short hash of a file's content, for names."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def run(words: list[str]) -> None:
    """Run a program that fetches; RuntimeError with its words when it fails."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")


def main() -> None:
    """Fetch all that tests of clients need, before they run under their time limits."""
    python_environment(CLIENTS / "python.lock")
    python_environment(CLIENTS.parent / "fuzz" / "schemathesis.lock")
    node_modules(CLIENTS / "node")


if __name__ == "__main__":
    main()
