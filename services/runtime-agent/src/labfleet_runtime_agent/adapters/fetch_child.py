"""Fetches one URL: `python -I -c <this text> URL`, as nobody, in the network of a build.

The body goes to standard output. The last line on standard error is JSON: `{}`, or `{"error": ...}` and
the status. It imports nothing but Python's own library: the builder's user may read nothing else.
"""

import http.client
import json
import shutil
import sys
import urllib.error
import urllib.request

_QUIET_S = 60
_MOST_WORDS = 300


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, with redirections, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def main() -> None:
    """Fetch; see above."""
    url = sys.argv[1]
    try:
        with _opener().open(url, timeout=_QUIET_S) as answer:
            shutil.copyfileobj(answer, sys.stdout.buffer, 1 << 18)
            left = getattr(answer, "length", None)
            if left:
                raise http.client.IncompleteRead(b"", left)
        sys.stdout.buffer.flush()
        verdict = {}
    except urllib.error.HTTPError as exc:
        body = exc.read(_MOST_WORDS).decode(errors="replace").strip()
        verdict = {
            "error": f"failed to GET {url} with status {exc.code} {exc.reason}: {body}",
            "status": exc.code,
        }
    except (OSError, ValueError, http.client.HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        verdict = {"error": f'Get "{url}": {reason}', "status": 0}
    sys.stderr.write(json.dumps(verdict) + "\n")


if __name__ == "__main__":
    main()
