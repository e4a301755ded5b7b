"""Tenants with the unmodified docker command line over TLS: each sees only its own."""

import contextlib
import gc
import hashlib
import json
import random
import secrets
import subprocess
import time
from pathlib import Path

import docker
import docker.tls
import httpx
import pytest
from tests.farm.fleet import Fleet, until, until_clean
from tests.farm.tenant import Tenant

Two = tuple[Tenant, Tenant]
SWEEPS_S = 25
"""By then whoever takes away what departed tenants leave has looked once more."""


@pytest.fixture
def ann(fleet: Fleet, tenants: Two) -> Tenant:  # noqa: ARG001 - empty again afterwards
    return tenants[0]


@pytest.fixture
def bob(fleet: Fleet, tenants: Two) -> Tenant:  # noqa: ARG001 - empty again afterwards
    return tenants[1]


def _clear(*tenants: Tenant) -> None:
    for each in tenants:
        if ids := each.docker("ps", "-aq").out.split():
            each.docker("rm", "-fv", *ids)


def test_two_tenants_have_the_same_names_and_see_only_their_own(ann: Tenant, bob: Tenant) -> None:
    for each in (ann, bob):
        each.docker("network", "create", "lab")
        each.docker("volume", "create", "home")
        each.docker("run", "-d", "--name", "web", "--network", "lab", "-v", "home:/data",
                    "--hostname", f"of-{each.name}", "busybox", "sleep", "300")  # fmt: skip
    try:
        for each in (ann, bob):
            assert each.docker("exec", "web", "hostname").out == f"of-{each.name}"
            assert each.docker("ps", "--format", "{{.Names}}").out == "web"
            assert each.docker("volume", "ls", "-q").out == "home"
            assert each.docker("info", "--format", "{{.Containers}}").out == "1"
            networks = each.docker("network", "ls", "--format", "{{.Name}}").out.split()
            assert networks.count("lab") == 1
            address = each.docker(
                "inspect", "-f", "{{.NetworkSettings.Networks.lab.IPAddress}}", "web"
            ).out
            assert f"Address: {address}" in each.docker("exec", "web", "nslookup", "web").out
        foreign = ann.docker("inspect", "-f", "{{.Id}}", "web").out
        for words in (("inspect", foreign), ("logs", foreign[:12]), ("rm", "-f", foreign)):
            said = bob.docker(*words, code=None).err  # `rm -f` ends well
            assert "No such" in said
            assert "ann" not in said
        assert "web" not in ann.fleet.docker("ps", "-a", "--format", "{{.Names}}").out
        shown = ann.fleet.labfleet("status").out
        assert all(f"  {each.name} " in shown for each in (ann, bob))  # the operators see all there
    finally:
        _clear(ann, bob)
        for each in (ann, bob):
            each.docker("network", "rm", "lab")
            each.docker("volume", "rm", "home")


def test_a_client_certificate_is_enough(ann: Tenant) -> None:
    fleet = ann.fleet
    done = fleet.docker("run", "--rm", "busybox", "echo", "certified", env=ann.cert_env)
    assert done.out == "certified"
    assert (
        "authentication required"
        in fleet.docker(
            "ps", code=1, env={**ann.env, "DOCKER_CONFIG": str(ann.config("", "none"))}
        ).err
    )


def test_a_certificate_is_revoked(ann: Tenant, tmp_path: Path) -> None:
    fleet = ann.fleet
    made = fleet.labfleet("tenant", "cert", "ann", "--out", str(tmp_path), "--scopes", "read")
    fingerprint = made.out.strip()
    env = {**ann.cert_env, "DOCKER_CERT_PATH": str(tmp_path)}
    fleet.docker("ps", env=env)
    assert "needs the scope run" in fleet.docker("create", "busybox", code=1, env=env).err
    assert fingerprint[:16] in fleet.labfleet("tenant", "certs", "ann").out
    fleet.labfleet("tenant", "uncert", fingerprint[:16])
    assert "revoked" in fleet.docker("ps", code=1, env=env).err
    assert "no certificate" in fleet.labfleet("tenant", "uncert", fingerprint[:16], code=1).out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker-py's own
def test_docker_py_over_tls(ann: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes the connection over from a TLS library of its own."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they would outdo `ca_cert`
        monkeypatch.delenv(name, raising=False)
    certificates = ann.directory / "cert"
    config = docker.tls.TLSConfig(
        client_cert=(str(certificates / "cert.pem"), str(certificates / "key.pem")),
        ca_cert=str(certificates / "ca.pem"),
        verify=True,
    )
    client = docker.DockerClient(base_url=ann.url, tls=config, timeout=60)
    try:
        assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
        box = client.containers.run("busybox", "sleep 300", detach=True)
        code, (out, err) = box.exec_run("sh -c 'echo o; echo e >&2; exit 2'", demux=True)
        assert (code, out, err) == (2, b"o\n", b"e\n")
        made = client.api.exec_create(box.id, "cat", stdin=True, tty=True)["Id"]
        raw = client.api.exec_start(made, socket=True, tty=True)
        raw.sendall(b"typed\n")
        assert raw.recv(100).startswith(b"typed")
        raw.close()
        del raw
        gc.collect()
        box.remove(force=True)
    finally:
        client.close()


def test_without_tls_the_api_is_on_loopback_only_and_asks_for_a_token_too(ann: Tenant) -> None:
    fleet = ann.fleet
    env = {
        **ann.env,
        "DOCKER_HOST": f"tcp://{fleet.plan.choices.tcp}",
        "DOCKER_TLS_VERIFY": "",
        "DOCKER_CERT_PATH": "",
    }
    assert fleet.docker("run", "--rm", "busybox", "echo", "plain", env=env).out == "plain"
    nobody = {**env, "DOCKER_CONFIG": str(ann.config("", "none"))}
    assert "authentication required" in fleet.docker("ps", code=1, env=nobody).err
    assert "in the clear" in fleet.labfleet("up", "--tcp", "0.0.0.0:2375", code=1).out


def test_exec_over_tls_carries_every_byte_after_the_half_close(ann: Tenant, tmp_path: Path) -> None:
    """100 MB in, the same 100 MB out; the command ends only at the end of its input."""
    data = random.Random(1).randbytes(1 << 20) * 100
    ann.docker("run", "-d", "--name", "pipe", "busybox", "sleep", "300")
    try:
        sent, got = tmp_path / "sent", tmp_path / "got"
        sent.write_bytes(data)
        with sent.open("rb") as source, got.open("wb") as target:
            subprocess.run(["docker", "exec", "-i", "pipe", "cat"], stdin=source, stdout=target,
                           env=ann.env, timeout=100, check=True)  # fmt: skip
        assert got.read_bytes() == data
        late = ann.docker("exec", "-i", "pipe", "sh", "-c", "cat >/dev/null; sleep 1; echo end")
        assert late.out == "end"
        assert ann.docker("exec", "pipe", "sh", "-c", "exit 7", code=7).code == 7
    finally:
        _clear(ann)


def test_images_of_a_tenant_are_its_own_and_shared_ones_are_read_only(
    ann: Tenant, bob: Tenant
) -> None:
    fleet = ann.fleet
    ann.docker("tag", "busybox", "lab/tool:1")
    ann.docker("tag", "busybox", "mine")
    fleet.docker("tag", "busybox", "staff/secret:1")
    try:
        assert ann.docker("run", "--rm", "lab/tool:1", "echo", "own").out == "own"
        names = ann.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
        assert sorted(names) == ["busybox:latest", "lab/tool:1", "mine:latest"]
        for name in ("lab/tool:1", "mine", "staff/secret:1"):
            assert "No such image" in bob.docker("image", "inspect", name, code=1).err
        assert bob.docker("images", "-q").out.count("\n") == 0
        assert "staff/secret" not in ann.docker("images").out
        assert "read-only" in ann.docker("rmi", "busybox", code=1).err
        shown = json.loads(fleet.docker("image", "inspect", "busybox").out)[0]["RepoTags"]
        assert not [tag for tag in shown if "tool" in tag or "mine" in tag]
    finally:
        ann.docker("rmi", "lab/tool:1", "mine")
        fleet.docker("rmi", "staff/secret:1")
    assert ann.docker("images", "--format", "{{.Repository}}").out == "busybox"


def test_events_are_those_of_the_own_tenant(ann: Tenant, bob: Tenant) -> None:
    ann.docker("run", "--rm", "--name", "told", "busybox", "true")
    bob.docker("run", "--rm", "--name", "untold", "busybox", "true")

    def names(tenant: Tenant) -> str:
        return tenant.docker(
            "events", "--since", "60s", "--until", "0s", "--filter", "type=container",
            "--format", "{{.Actor.Attributes.name}}",
        ).out  # fmt: skip

    until(lambda: "told" in names(ann).split())
    until(lambda: "untold" in names(bob))
    assert "told" not in names(bob).split()
    assert "untold" not in names(ann).split()


def test_a_token_is_narrow_revoked_and_expires(ann: Tenant) -> None:
    fleet = ann.fleet
    create = ("token", "create", "--tenant", ann.name)
    reader = fleet.labfleet(*create, "--scopes", "read", "--note", "grading").out.strip()
    env = {**ann.env, "DOCKER_CONFIG": str(ann.config(reader, "reader"))}
    fleet.docker("ps", env=env)
    refused = fleet.docker("create", "busybox", code=1, env=env).err
    assert "needs the scope run" in refused
    rows = fleet.labfleet("token", "ls", "--tenant", ann.name).out
    assert "grading" in rows
    assert reader.rpartition("_")[2] not in rows
    fleet.labfleet("token", "revoke", reader.split("_")[1])
    assert "revoked" in fleet.docker("ps", code=1, env=env).err
    short = fleet.labfleet(*create, "--expires", "1s").out.strip()
    env["DOCKER_CONFIG"] = str(ann.config(short, "short"))
    until(lambda: fleet.docker("ps", code=None, env=env).code != 0)
    assert "expired" in fleet.docker("ps", code=1, env=env).err
    assert "scope" in fleet.labfleet(*create, "--scopes", "admin", code=1).out


def test_streams_end_with_their_credential(ann: Tenant) -> None:
    fleet = ann.fleet
    ann.docker("run", "-d", "--name", "long", "busybox", "sh", "-c", "echo begun; sleep 600")
    create = ("token", "create", "--tenant", ann.name)
    token = fleet.labfleet(*create).out.strip()
    short = fleet.labfleet(*create, "--expires", "6s").out.strip()
    commands = (
        ("logs", "-f", "long"),
        ("exec", "-i", "long", "sh", "-c", "echo begun; sleep 600"),
        ("events", "--since", "10m"),
        ("wait", "long"),
    )
    clients = []
    for number, secret in enumerate((token, short)):
        env = {**ann.env, "DOCKER_CONFIG": str(ann.config(secret, f"cut{number}"))}
        clients += [
            subprocess.Popen(["docker", *words], env=env, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for words in commands
        ]  # fmt: skip
    try:
        for client in (clients[0], clients[1], clients[2]):
            assert client.stdout is not None
            assert client.stdout.readline()
        fleet.labfleet("token", "revoke", token.split("_")[1])
        until(lambda: all(client.poll() is not None for client in clients), 30)
    finally:
        for client in clients:
            client.kill()
            client.communicate()
    assert ann.docker("exec", "long", "echo", "on").out == "on"
    ann.docker("rm", "-f", "long")


def test_a_tenant_that_is_removed_leaves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    carol = Tenant.create(fleet, "carol", tmp_path)
    assert "exists" in fleet.labfleet("tenant", "create", "carol", code=1).out
    carol.docker("run", "-d", "--name", "left", "-v", "left:/data", "busybox", "sleep", "300")
    assert "1 containers" in fleet.labfleet("tenant", "rm", "carol", code=1).out
    fleet.labfleet("tenant", "rm", "--force", "carol")
    assert "carol" not in fleet.labfleet("tenant", "ls").out
    assert carol.docker("ps", code=1).err
    assert "no tenant" in fleet.labfleet("tenant", "rm", "carol", code=1).out
    until_clean(fleet)  # its default network goes by itself


@pytest.mark.long
def test_a_tenant_made_again_under_the_same_name_inherits_nothing(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Refused for a moment, or made at once: nothing of the earlier one is there, nor is anything taken later."""
    made = {}
    for kind in ("network", "volume", "image", "blob"):
        for folder in ("first", "again"):
            (tmp_path / kind / folder).mkdir(parents=True)
        first = Tenant.create(fleet, kind, tmp_path / kind / "first")
        made[kind] = (first, _fill(first, kind))
    with contextlib.ExitStack() as stack:
        again = {}
        for kind, (first, blob) in made.items():
            fleet.labfleet("tenant", "rm", "--force", kind)
            removed_s = time.monotonic()
            tenant = again[kind] = Tenant.create(fleet, kind, tmp_path / kind / "again")
            stack.callback(tenant.remove)
            _check_is_empty(tenant, blob)
            _check_is_locked_out(fleet, first)
            assert len(fleet.labfleet("token", "ls", "--tenant", kind).out.splitlines()) == 2
            tenant.docker("network", "create", "own")
            tenant.docker("tag", "busybox", "own:1")
        until(lambda: time.monotonic() - removed_s > SWEEPS_S, 60)
        for tenant in again.values():
            assert (
                tenant.docker("run", "--rm", "--network", "own", "own:1", "echo", "on").out == "on"
            )
    until_clean(fleet)


def _check_is_locked_out(fleet: Fleet, tenant: Tenant) -> None:
    for env in (tenant.env, tenant.cert_env):
        assert "not known" in fleet.docker("ps", code=1, env=env).err
    with _registry(tenant) as client:
        assert client.get("/_catalog").status_code == httpx.codes.UNAUTHORIZED


def _fill(tenant: Tenant, kind: str) -> str:
    """Let a tenant have something; digest of a blob that it has sent, or not."""
    data = secrets.token_bytes(1000)
    blob = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if kind == "network":
        tenant.docker("network", "create", "lab")
    if kind == "volume":
        tenant.docker("run", "--rm", "-v", "home:/data", "busybox", "touch", "/data/mine")
    if kind == "image":
        tenant.docker("tag", "busybox", "own:1")
    if kind == "blob":
        with _registry(tenant) as client:
            sent = client.post("/own/blobs/uploads/", params={"digest": blob}, content=data)
            assert sent.status_code == httpx.codes.CREATED, sent.text
    return blob


def _check_is_empty(tenant: Tenant, blob: str) -> None:
    assert tenant.docker("ps", "-aq").out == ""
    assert tenant.docker("volume", "ls", "-q").out == ""
    assert "lab" not in tenant.docker("network", "ls", "--format", "{{.Name}}").out.split()
    assert "own" not in tenant.docker("images", "--format", "{{.Repository}}").out.split()
    with _registry(tenant) as client:
        for path in ("tags/list", "manifests/1", f"blobs/{blob}"):
            assert client.get(f"/own/{path}").status_code == httpx.codes.NOT_FOUND, path
    found = tenant.docker("run", "--rm", "-v", "home:/data", "busybox", "ls", "/data")
    assert found.out == ""


def _registry(tenant: Tenant) -> httpx.Client:
    """As docker would after a login with the tenant's token."""
    base = f"http://{tenant.fleet.plan.registry}/v2"
    return httpx.Client(base_url=base, auth=("any", tenant.token), timeout=30)


def test_what_no_tenant_may_express_is_refused_by_name(ann: Tenant) -> None:
    wishes: dict[str, object] = {
        "Privileged": True,
        "Binds": ["/etc:/host"],
        "Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/host"}],
        "Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg"}],
        "DeviceCgroupRules": ["a *:* rwm"],
        "PidMode": "host",
        "IpcMode": "host",
        "UTSMode": "host",
        "UsernsMode": "host",
        "CgroupnsMode": "host",
        "NetworkMode": "host",
        "CgroupParent": "/",
        "CapAdd": ["SYS_ADMIN"],
        "SecurityOpt": ["seccomp=unconfined"],
        "Sysctls": {"kernel.core_pattern": "|/x"},
        "OomScoreAdj": -500,
    }
    with ann.http() as http:
        for field, value in wishes.items():
            body = {"Image": "busybox", "HostConfig": {field: value}}
            answer = http.post("/containers/create", json=body)
            assert answer.status_code == 403, f"{field}: {answer.status_code} {answer.text}"
            assert field in answer.json()["message"]
    assert ann.docker("ps", "-aq").out == ""
