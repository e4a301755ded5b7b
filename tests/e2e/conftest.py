import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.farm.fleet import Fleet, free_port, running_fleet, sweep_leftovers
from tests.farm.tenant import Tenant

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            has_limit = item.get_closest_marker("timeout") is not None
            if not has_limit:  # an item's own would go before its module's
                item.add_marker(pytest.mark.timeout(240))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="a fleet needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the services say of it: their logs go with the fleet."""
    report = yield
    fleet = getattr(item, "funcargs", {}).get("shared_fleet")
    if report.failed and isinstance(fleet, Fleet):
        report.sections.append(("complaints of the services", fleet.complaints()))
    return report


@pytest.fixture(scope="session")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    sweep_leftovers()
    tls, tcp = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with running_fleet(tmp_path_factory.mktemp("docker"), hosts=3, tls=tls, tcp=tcp) as fleet:
        fleet.labfleet("image", "pre-pull", "busybox")  # else all goes where it is already
        yield fleet


@pytest.fixture(scope="session")
def tenants(
    shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tenant, Tenant]]:
    """Two tenants of the shared fleet, who come with tokens over TLS."""
    made = [
        Tenant.create(shared_fleet, name, tmp_path_factory.mktemp(name)) for name in ("ann", "bob")
    ]
    yield made[0], made[1]
    for each in made:
        each.remove()


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The shared fleet, empty again after each test, and free of leaks."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command line on this machine")
    yield shared_fleet
    shared_fleet.clean()
