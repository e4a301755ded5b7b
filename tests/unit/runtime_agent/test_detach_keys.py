"""Finding the keys that detach."""

from hypothesis import given
from hypothesis import strategies as st

from labfleet_runtime_agent.core.detach_keys import DetachKeys


def fed(keys: bytes, *reads: bytes) -> tuple[bytes, bool]:
    scanner = DetachKeys(keys)
    passed = b""
    for data in reads:
        more, is_over = scanner.feed(data)
        passed += more
        if is_over:
            return passed, True
    return passed, False


def test_the_default_is_ctrl_p_ctrl_q() -> None:
    assert fed(b"", b"ls\n\x10\x11more") == (b"ls\n", True)


def test_a_sequence_may_come_in_pieces() -> None:
    assert fed(b"abc", b"x\na", b"b", b"c") == (b"x\n", True)


def test_a_sequence_that_goes_on_otherwise_is_handed_on() -> None:
    assert fed(b"abc", b"a", b"b", b"xy") == (b"abxy", False)


def test_the_key_that_breaks_a_sequence_begins_none() -> None:
    assert fed(b"ab", b"aab") == (b"aab", False)


@given(st.lists(st.binary(max_size=8)), st.binary(min_size=1, max_size=3))
def test_nothing_is_lost_before_the_keys(reads: list[bytes], keys: bytes) -> None:
    scanner = DetachKeys(keys)
    passed, typed = b"", b""
    for data in reads:
        more, is_over = scanner.feed(data)
        passed, typed = passed + more, typed + data
        if is_over:
            assert typed.startswith(passed + keys)
            return
    assert typed.startswith(passed)
    assert keys.startswith(typed[len(passed) :])
