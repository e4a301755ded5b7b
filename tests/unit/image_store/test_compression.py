"""Damage in compressed streams, whatever library finds it."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pytest

from labfleet_image_store.adapters.compression import checked_read, inflated
from labfleet_proto.errors import InvalidRequestError


@pytest.mark.parametrize(
    "pack", [bz2.compress, gzip.compress, lzma.compress], ids=["bzip2", "gzip", "xz"]
)
def test_a_damaged_stream_is_bad_input(pack: Callable[[bytes], bytes]) -> None:
    whole = bytearray(pack(bytes(range(256)) * 400))
    assert checked_read(inflated(io.BytesIO(bytes(whole))), 10) == bytes(range(10))
    for at in (len(whole) // 2, len(whole) - 6):
        damaged = whole.copy()
        damaged[at] ^= 255
        with pytest.raises(InvalidRequestError, match="damaged"):
            checked_read(inflated(io.BytesIO(bytes(damaged))), 1 << 20)
    with pytest.raises(InvalidRequestError, match="damaged"):
        checked_read(inflated(io.BytesIO(bytes(whole[:-8]))), 1 << 20)
