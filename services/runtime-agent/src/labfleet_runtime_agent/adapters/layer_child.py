"""The child that reads a writable layer: `python -m ...layer_child JSON`, an `Order` of `writable_layers`.

A walk of a large tree neither holds up the agent nor outlives its asker. Output goes to standard output;
the last line on standard error is JSON: `{}` or `{"error": ..., "code": ...}`.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from labfleet_proto.errors import LabfleetError
from labfleet_runtime_agent.adapters.tree_reader import allow_depth
from labfleet_runtime_agent.adapters.writable_layer import WritableLayer, size_of
from labfleet_runtime_agent.core.changes import Change


def _write_changes(changes: Iterable[Change], output: IO[bytes]) -> None:
    """Write docker's list; an empty one is an empty list."""
    output.write(b"[")
    comma = b""
    for change in changes:
        path = change.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        output.write(comma + json.dumps({"Path": path, "Kind": int(change.kind)}).encode())
        comma = b","
    output.write(b"]\n")


def _perform(order: dict[str, Any], output: IO[bytes]) -> None:
    upper = Path(order["upper"])
    layers = [Path(each) for each in order["layers"]]
    match order["op"]:
        case "changes":
            _write_changes(WritableLayer(upper, layers, order["base"]).changes(), output)
        case "tar":
            WritableLayer(upper, layers, order["base"]).write_tar(output)
        case _:
            sizes = [size_of(path) for path in (upper, *layers)]
            output.write(json.dumps(sizes).encode())


def main() -> None:
    """Run as the child."""
    allow_depth()
    answer: dict[str, str] = {}
    try:
        _perform(json.loads(sys.argv[1]), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)
    except LabfleetError as exc:
        answer = {"error": exc.message, "code": exc.code}
    except OSError as exc:
        answer = {"error": f"writable layer: {exc}", "code": "internal"}
    sys.stderr.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
