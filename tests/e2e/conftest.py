import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, running_fleet, sweep_leftovers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="a fleet needs root"))


@pytest.fixture(scope="session")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    sweep_leftovers()
    with running_fleet(tmp_path_factory.mktemp("docker"), hosts=3) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet, empty again after each test, and free of leaks."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command line on this machine")
    yield shared_fleet
    shared_fleet.clean()
