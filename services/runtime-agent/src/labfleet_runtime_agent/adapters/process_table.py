"""The processes of a container as `ps` on the host shows them."""

import re

from labfleet_chassis import process
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.runtime import TopTable

_LIMIT_S = 10.0
_WORD = re.compile(r"-{0,2}[A-Za-z0-9:_%+-]+(?:[,=][A-Za-z0-9:_%+-]+)*")
_RENAMED_PID = re.compile(r"pid[^,\s]*=", re.IGNORECASE)


async def table(ps_args: str, pids: set[int]) -> TopTable:
    """Run `ps` with the client's options for these processes. Raises InvalidRequestError.

    As moby: `-q` first; some options do not go with it, then all processes are asked for.
    """
    words = ps_args.split() or ["-ef"]
    for word in words:
        if _WORD.fullmatch(word) is None:
            raise InvalidRequestError(f"ps arguments {ps_args!r} are not allowed")
        if _RENAMED_PID.search(word):
            raise InvalidRequestError(f'specifying "{word}" is not allowed')
    chosen = ",".join(str(pid) for pid in sorted(pids)) or "0"
    done = await process.run(["ps", *words, f"-q{chosen}"], timeout_s=_LIMIT_S, check=False)
    if done.exit_code != 0:
        done = await process.run(["ps", *words], timeout_s=_LIMIT_S, check=False)
    if done.exit_code != 0:
        raise InvalidRequestError(f"ps: {done.stderr.decode(errors='replace').strip()}")
    return parsed(done.stdout.decode(errors="replace"), pids)


def parsed(text: str, pids: set[int]) -> TopTable:
    """The rows of these processes; a thread's row (`-` for its pid) goes with its process.

    Raises InvalidRequestError when there is no column PID.
    """
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidRequestError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    is_ours = False
    for line in lines[1:]:
        row = tuple(line.split(None, len(titles) - 1))
        if len(row) <= column:
            continue
        if row[column] != "-":
            is_ours = row[column].isdigit() and int(row[column]) in pids
        if is_ours:
            rows.append(row)
    return TopTable(titles=tuple(titles), processes=tuple(rows))
