"""Which event loops a contract is held on."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Transports belong to the loop: the hijack is tested on asyncio's and on the services' own."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.path.name == "test_hijack.py":
        factories["uvloop"] = uvloop.new_event_loop
    return factories
