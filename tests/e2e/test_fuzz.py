"""schemathesis against a fleet: no server error, no hang, no leak, whatever is sent."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.farm.environments import python_environment
from tests.farm.fleet import Fleet, free_port, running_fleet, until_clean
from tests.farm.tenant import Tenant
from tests.farm.traces import until_traceless
from tests.fuzz.description import description
from tests.fuzz.forwarder import forwarded

from labfleet_cli.docker_api import DockerApi

FUZZ = Path(__file__).parents[1] / "fuzz"
SEED = 20261124
_MOST_MADE = 12


@pytest.fixture
def lonely_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own: prune may take the images that other tests need."""
    with running_fleet(tmp_path, hosts=1, suffix="-fuzz", tls=f"127.0.0.1:{free_port()}") as fleet:
        yield fleet


def _fuzz(
    fleet: Fleet, scratch: Path, phases: str, examples: int, seed: int, tenant: Tenant | None = None
) -> str:
    env = tenant.env if tenant is not None else fleet.env
    fleet.docker("run", "--name", "fuzzed", "busybox", "echo", "one", env=env)
    fleet.docker("run", "-d", "--name", "alive", "busybox", "sleep", "6000", env=env)
    document = scratch / "openapi.json"
    document.write_text(json.dumps(description(["fuzzed"])))
    program = python_environment(FUZZ / "schemathesis.lock") / "bin" / "st"
    with forwarded(fleet.plan.socket) as url, _room_kept(fleet, tenant):
        words = [str(program), "--config-file", str(FUZZ / "schemathesis.toml"), "run"]
        words += [str(document), "--url", url, "--phases", phases, "--seed", str(seed)]
        words += ["--checks", "not_a_server_error", "--request-timeout", "30"]
        words += ["--max-examples", str(examples), "--suppress-health-check", "all"]
        words += ["--no-color", "--warnings", "off", "--continue-on-failure"]
        if tenant is not None:
            words += ["--header", f"Authorization: Bearer {tenant.token}"]
        done = subprocess.run(
            words, cwd=scratch, capture_output=True, text=True, timeout=1500, check=False
        )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-15000:]
    assert fleet.docker("exec", "alive", "echo", "here", env=env).out == "here"
    if tenant is not None:
        _check_envelope(tenant)
        tenant.remove()
    with DockerApi(fleet.plan.socket) as api:
        api.remove_everything()
    until_clean(fleet)
    until_traceless(fleet)
    return report


@contextlib.contextmanager
def _room_kept(fleet: Fleet, tenant: Tenant | None) -> Iterator[None]:
    """What was made goes now and then: a full host refuses, with reasons, but as a server error."""
    over = threading.Event()
    failures: list[BaseException] = []

    def keep() -> None:
        while not over.wait(1):
            listed = fleet.docker("ps", "-aq", env=env, code=None).out.split()
            if len(listed) > _MOST_MADE:
                if tenant is not None:
                    _check_envelope(tenant)
                kept = fleet.docker("ps", "-aq", "-f", "name=alive", "-f", "name=fuzzed", env=env)
                gone = sorted(set(listed) - set(kept.out.split()))
                fleet.docker("rm", "-f", *gone, env=env, code=None)

    def guarded() -> None:
        try:
            keep()
        except BaseException as exc:
            failures.append(exc)
            raise

    env = tenant.env if tenant is not None else fleet.env
    keeper = threading.Thread(target=guarded)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
    assert not failures, failures


def _check_envelope(tenant: Tenant) -> None:
    """No container of the tenant's has more than a tenant may have, whatever was sent."""
    with tenant.http() as client:
        rows = client.get("/containers/json", params={"all": "1"}).json()
        for row in rows:
            found = client.get(f"/containers/{row['Id']}/json")
            if found.status_code == httpx.codes.NOT_FOUND:
                continue
            host = found.json()["HostConfig"]
            assert not host["Privileged"]
            assert not host["Devices"]
            assert host["Memory"] > 0
            assert host["PidsLimit"] > 0
            assert host["NetworkMode"] != "host"
            assert host["PidMode"] != "host"
            assert not {"SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"} & set(host["CapAdd"] or [])
            assert all(mount["Type"] in ("volume", "tmpfs") for mount in found.json()["Mounts"])


@pytest.mark.timeout(600)
def test_a_short_run_finds_nothing(lonely_fleet: Fleet, tmp_path: Path) -> None:
    _fuzz(lonely_fleet, tmp_path, "fuzzing", 5, SEED)


@pytest.mark.timeout(600)
def test_a_short_run_as_a_tenant_finds_nothing(lonely_fleet: Fleet, tmp_path: Path) -> None:
    ann = Tenant.create(lonely_fleet, "ann", tmp_path)
    _fuzz(lonely_fleet, tmp_path, "fuzzing", 4, SEED, ann)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_long_run_as_a_tenant_finds_nothing(lonely_fleet: Fleet, tmp_path: Path) -> None:
    ann = Tenant.create(lonely_fleet, "ann", tmp_path)
    _fuzz(lonely_fleet, tmp_path, "coverage,fuzzing", 100, 4, ann)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_long_run_finds_nothing(lonely_fleet: Fleet, tmp_path: Path, seed: int) -> None:
    _fuzz(lonely_fleet, tmp_path, "coverage,fuzzing", 100, seed)
