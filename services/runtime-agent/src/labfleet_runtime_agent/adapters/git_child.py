"""Fetches a git repository: `python -I -c <this text> URL REFERENCE DIRECTORY`, as nobody, in the network of a build.

The last line on standard error is JSON: `{}` or `{"error": ...}`. It imports nothing but Python's own library:
the builder's user may read nothing else.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

_SAFE = [
    "-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always",
    "-c", "protocol.git.allow=always", "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true",
]  # fmt: skip
_ENV = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ASKPASS": "true"}


def _git(*words: str) -> None:
    env = {**os.environ, **_ENV}  # noqa: TID251 - a program of its own
    command = ["git", *_SAFE, *words]
    subprocess.run(command, check=True, capture_output=True, text=True, env=env)  # noqa: TID251


def _fetch(url: str, reference: str, directory: str) -> None:
    Path(directory).mkdir()
    os.chdir(directory)
    _git("init", "-q")
    _git("remote", "add", "origin", url)
    wanted = reference or "HEAD"
    try:
        try:
            _git("fetch", "-q", "--depth", "1", "origin", wanted)
        except subprocess.CalledProcessError:  # a server that gives no part, or a bare commit
            _git("fetch", "-q", "--tags", "origin")
            _git("checkout", "-q", reference or "origin/HEAD", "--")
        else:
            _git("checkout", "-q", "FETCH_HEAD", "--")
    except subprocess.CalledProcessError:
        _git("fetch", "-q", "origin", wanted)
        _git("checkout", "-q", "FETCH_HEAD", "--")
    _git("submodule", "-q", "update", "--init", "--recursive", "--depth=1")


def main() -> None:
    """Fetch; see above."""
    try:
        _fetch(*sys.argv[1:4])
        verdict = {}
    except subprocess.CalledProcessError as exc:
        words = (exc.stderr or "").strip().splitlines()
        verdict = {"error": f"error fetching: {words[-1] if words else exc}"}
    except OSError as exc:
        verdict = {
            "error": f"unable to find 'git': {exc}" if exc.errno == errno.ENOENT else str(exc)
        }
    sys.stderr.write(json.dumps(verdict) + "\n")


if __name__ == "__main__":
    main()
