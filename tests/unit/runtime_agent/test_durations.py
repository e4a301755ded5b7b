"""Times as Go prints them."""

import pytest

from labfleet_runtime_agent.core.durations import in_go


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.05, "50ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (90, "1m30s"),
        (7200, "2h0m0s"),
        (2e-6, "2µs"),
    ],
)
def test_a_time_is_written_as_by_go(seconds: float, text: str) -> None:
    assert in_go(seconds) == text
