"""Services stay in memory: what students run may press it, and a class begins after an hour of rest."""

import ctypes
import os

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def stay_in_memory() -> str:
    """Keep every page that was used once; return why that cannot be, or nothing.

    Pages that were never used take no memory, and programs that are begun later are free of it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
