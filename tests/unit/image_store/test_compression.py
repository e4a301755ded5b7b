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


def test_a_gzip_whose_inside_is_no_deflate_is_refused_in_words() -> None:
    """A library of its own says so by an error of its own."""
    broken = bytes.fromhex(
        "1f8b0800ea040e6b02ff12ceb10d80301003c01f850d8884c23ebf4212f607893694"
        "2990ee1abbb3738fe5caeb2b27fd3c4a8dade6fa6f71f591ed990c00000000000000000000"
    )
    with pytest.raises(InvalidRequestError, match="archive: damaged"):
        checked_read(inflated(io.BytesIO(broken)), 1 << 20)
