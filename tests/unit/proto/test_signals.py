"""Signals as docker's users write them."""

import signal

import pytest

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.signals import number_of


@pytest.mark.parametrize("text", ["SIGHUP", "HUP", "sighup", "hup", "1", "01"])
def test_all_spellings_of_a_signal_are_one(text: str) -> None:
    assert number_of(text) == signal.SIGHUP


@pytest.mark.parametrize("member", list(signal.Signals))
def test_every_signal_of_the_kernel_has_its_name(member: signal.Signals) -> None:
    assert number_of(member.name) == member


def test_the_last_signal_has_a_number() -> None:
    assert number_of("64") == signal.SIGRTMAX


@pytest.mark.parametrize(("text", "offset"), [("RTMIN+3", 3), ("SIGRTMIN+0", 0), ("rtmin+30", 30)])
def test_a_real_time_signal_is_counted_from_the_first(text: str, offset: int) -> None:
    assert number_of(text) == signal.SIGRTMIN + offset


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "NOSUCH",
        "SIGSIGHUP",
        "0",
        "-1",
        "65",
        "1.5",
        " 1",
        "9" * 5000,
        "²",
        "٣",
        "RTMIN+",
        "RTMIN+²",
    ],
    ids=lambda text: ascii(text[:10]),
)
def test_no_other_text_is_a_signal(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Invalid signal: "):
        number_of(text)
