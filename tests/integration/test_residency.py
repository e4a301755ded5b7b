"""A service's pages are locked once they were used, and only then."""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="locking needs root"),
]

_CHILD = """
import mmap
from pathlib import Path
from labfleet_chassis.residency import stay_in_memory

def locked_kib():
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmLck:") + 1])

assert stay_in_memory() == ""
before = locked_kib()
unused = mmap.mmap(-1, 64 << 20)
resident = int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE >> 10
print(before, resident)
"""


def test_what_was_used_stays_and_what_was_not_takes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], check=True, capture_output=True, text=True
    )
    locked_kib, resident_kib = (int(word) for word in done.stdout.split())
    assert locked_kib > 1000
    assert resident_kib < 48 << 10
