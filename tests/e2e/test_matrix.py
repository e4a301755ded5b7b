"""Every route of the Engine API, asked by the wrong one: without a token, with another scope, by another tenant."""

import io
import json
import re
import secrets
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.farm.tenant import Tenant

from labfleet_api.core.access import rule_of
from labfleet_api.core.engine_routes import ENGINE_ROUTES
from labfleet_cli.oci_image import ImagePlan, push
from labfleet_proto.tenants import Scope

NOSUCH_ID, NOSUCH = "d" * 64, "nosuch-thing"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
QUERY = {
    "archive": {"path": "/"},
    "connect": {},
    "logs": {"stdout": "1"},
    "resize": {"h": "10", "w": "10"},
    "tag": {"repo": "stolen", "tag": "1"},
    "rename": {"name": "stolen"},
    "kill": {"signal": "KILL"},
    "attach": {"stream": "1", "stdout": "1"},
}
BODY = {
    "exec": {"Cmd": ["true"], "AttachStdout": True},
    "start": {"Detach": True},
    "update": {"Memory": 64 << 20},
    "connect": {"Container": NOSUCH},
    "disconnect": {"Container": NOSUCH},
}


@dataclass
class Things:
    """What Ann has, by kind: every text by which it can be named."""

    containers: tuple[str, ...]
    execs: tuple[str, ...]
    images: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]

    def of(self, path: str) -> tuple[tuple[str, str], ...]:
        """Names for a route's parameter, each with one of the same form that does not exist."""
        kinds = {
            "containers": self.containers,
            "exec": self.execs,
            "images": self.images,
            "distribution": self.images,
            "networks": self.networks,
            "volumes": self.volumes,
        }
        found = []
        for name in kinds.get(path.split("/")[1], ()):
            plain = name.removeprefix("sha256:")
            is_hex = re.fullmatch("[0-9a-f]{12,64}", plain) is not None
            other = NOSUCH_ID[: len(plain)] if is_hex else NOSUCH
            tag = plain.partition(":")[1] + plain.partition(":")[2]
            found.append((name, name.replace(plain, other + tag)))
        return tuple(found)

    def secrets_besides(self, *said: str) -> set[str]:
        """What an answer may not contain."""
        every = {*self.containers, *self.execs, *self.images, *self.networks, *self.volumes}
        named = {text for text in every if any(text in each for each in said)}
        return {text for text in every if not any(each in text or text in each for each in named)}


@pytest.fixture(scope="module")
def things(
    tenants: tuple[Tenant, Tenant], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Things]:
    ann, bob = tenants
    image = _own_image(ann, tmp_path_factory.mktemp("image"))
    network = ann.docker("network", "create", "annsnet").out
    ann.docker("volume", "create", "annsvol")
    container = ann.docker(
        "run", "-d", "--name", "annsweb", "--network", "annsnet", "-v", "annsvol:/data",
        "--label", "course=annslabel", "busybox", "sleep", "600",
    ).out  # fmt: skip
    with _client(ann) as client:
        created = client.post(f"/containers/{container}/exec", json={"Cmd": ["true"]}).json()["Id"]
    yield Things(
        (container, container[:12], "annsweb"),
        (created,),
        (image, image[7:19], "annsimage", "annsimage:latest"),
        (network, network[:12], "annsnet"),
        ("annsvol",),
    )
    state = ann.docker("inspect", "-f", "{{.State.Status}} {{.Name}}", container).out
    assert state == "running /annsweb"
    for kind, name in (("volume", "annsvol"), ("network", network), ("image", image)):
        ann.docker(kind, "inspect", name)
    ann.docker("rm", "-fv", container)
    ann.docker("network", "rm", "annsnet")
    ann.docker("volume", "rm", "annsvol")
    ann.docker("rmi", "annsimage")
    if ids := bob.docker("ps", "-aq").out.split():
        bob.docker("rm", "-f", *ids)


def _own_image(ann: Tenant, directory: Path) -> str:
    tar = directory / "layer.tar"
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo("fresh")
        data = secrets.token_bytes(100)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    plan = ImagePlan("annsimage", ("latest",), ("/fresh",), "2026-01-01T00:00:00Z", "test")
    store = f"http://ann:{ann.token}@{ann.fleet.plan.registry}"
    return push(plan, tar, store, lambda _text: None)


def _client(tenant: Tenant, token: str | None = None) -> httpx.Client:
    """Over the local socket, which a token makes the tenant's."""
    return httpx.Client(
        transport=httpx.HTTPTransport(uds=str(tenant.fleet.plan.socket)),
        base_url="http://docker/v1.50",
        headers={"Authorization": f"Bearer {token or tenant.token}"},
        timeout=20,
    )


def _ask(client: httpx.Client, method: str, path: str, name: str = "") -> httpx.Response:
    verb = path.rpartition("/")[2]
    filled = re.sub(r"\{\w+\}", name, path)
    body = BODY.get(verb, {})
    return client.request(
        method,
        filled,
        params=QUERY.get(verb, {}),
        content=json.dumps(body).encode() if method in ("POST", "PUT") else None,
        headers={"Content-Type": "application/json", **(WEBSOCKET if verb == "ws" else {})},
    )


WITH_NAME = [
    (method, path)
    for method, path in ENGINE_ROUTES
    if path.split("/")[1] in ("containers", "exec", "images", "distribution", "networks", "volumes")
    and "{" in path
]


def test_nothing_of_another_tenant_is_found_by_any_route(
    tenants: tuple[Tenant, Tenant], things: Things
) -> None:
    """The answer is the one for a thing that does not exist: same status, same words."""
    asked = 0
    with _client(tenants[1]) as bob:
        for method, path in WITH_NAME:
            for name, other in things.of(path):
                answer, wanted = _ask(bob, method, path, name), _ask(bob, method, path, other)
                about = f"{method} {path} {name}: {answer.status_code} {answer.text}"
                assert answer.status_code == wanted.status_code, about
                assert answer.status_code in (404, 501) or "put" in method.lower(), about
                assert answer.text.replace(name, other) == wanted.text, about
                assert not [text for text in things.secrets_besides(name) if text in answer.text]
                asked += 1
    assert asked > 110


@pytest.mark.parametrize(
    "path",
    [
        "/containers/json?all=1&size=1", "/images/json?all=1", "/networks", "/volumes", "/info", "/version",
        "/system/df", "/events?since=0&until={now}", "/images/search?term=annsimage", "/plugins",
        "/images/get?names=annsimage",
    ],
)  # fmt: skip
def test_no_list_shows_another_tenants_things(
    tenants: tuple[Tenant, Tenant], things: Things, path: str
) -> None:
    with _client(tenants[1]) as bob, _client(tenants[0]) as ann:
        now = ann.get("/info").json()["SystemTime"]
        answer = bob.get(path.replace("{now}", now))
    assert answer.status_code in (200, 404, 501)
    hidden = (
        things.secrets_besides("annsimage") if "annsimage" in path else things.secrets_besides()
    )
    assert not [text for text in {*hidden, "annslabel"} if text in answer.text]


@pytest.mark.parametrize(
    ("path", "kind", "keys"),
    [
        ("/containers/json?all=1", "containers", ("id", "name", "before", "since")),
        ("/containers/json?all=1", "networks", ("network",)),
        ("/containers/json?all=1", "volumes", ("volume",)),
        ("/containers/json?all=1", "images", ("ancestor",)),
        ("/networks", "networks", ("id", "name")),
        ("/volumes", "volumes", ("name",)),
        ("/images/json", "images", ("reference",)),
        ("/events?since=0&until={now}", "containers", ("container",)),
        ("/events?since=0&until={now}", "networks", ("network",)),
        ("/events?since=0&until={now}", "images", ("image",)),
    ],
)
def test_no_filter_finds_another_tenants_things(
    tenants: tuple[Tenant, Tenant], things: Things, path: str, kind: str, keys: tuple[str, ...]
) -> None:
    with _client(tenants[1]) as bob:
        now = bob.get("/info").json()["SystemTime"]
        for key in keys:
            for name in getattr(things, kind):
                filters = json.dumps({key: [name]})
                url = httpx.URL(path.replace("{now}", now)).copy_merge_params({"filters": filters})
                answer = bob.get(url)
                assert answer.status_code in (200, 404), answer.text
                assert not [text for text in things.secrets_besides(name) if text in answer.text]
                rows = answer.json() if answer.text.startswith(("[", "{")) else []
                if answer.status_code == 200:
                    rows = rows["Volumes"] if isinstance(rows, dict) else rows
                    assert not rows, f"{key}={name}: {answer.text}"


def test_nothing_is_made_of_another_tenants_things(
    tenants: tuple[Tenant, Tenant], things: Things
) -> None:
    base = {"Image": "busybox", "Cmd": ["true"]}
    wishes = [{**base, "Image": name} for name in things.images]
    for name in things.networks:
        wishes.append({**base, "HostConfig": {"NetworkMode": name}})
        wishes.append({**base, "NetworkingConfig": {"EndpointsConfig": {name: {}}}})
    for name in things.containers:
        wishes.append({**base, "HostConfig": {"NetworkMode": f"container:{name}"}})
        wishes.append({**base, "HostConfig": {"VolumesFrom": [name]}})
        wishes.append({**base, "HostConfig": {"PidMode": f"container:{name}"}})
        wishes.append({**base, "HostConfig": {"IpcMode": f"container:{name}"}})
        wishes.append({**base, "HostConfig": {"Links": [f"{name}:x"]}})
    with _client(tenants[1]) as bob:
        for wish in wishes:
            answer = bob.post("/containers/create", json=wish)
            made = answer.json().get("Id")
            if made is not None:  # docker, too, looks for the network only at the start
                answer = bob.post(f"/containers/{made}/start")
                bob.delete(f"/containers/{made}", params={"force": "1"})
            assert answer.status_code in (400, 403, 404, 409, 500, 501), f"{wish}: {answer.text}"
            said = json.dumps(wish)
            assert not [text for text in things.secrets_besides(said) if text in answer.text]
        for name in things.images:
            pulled = bob.post("/images/create", params={"fromImage": name})
            assert pulled.status_code == 404 or "error" in pulled.text, pulled.text
        joint = bob.post("/networks/create", json={"Name": "bobsnet"}).json()["Id"]
        for name in things.containers:
            joined = bob.post(f"/networks/{joint}/connect", json={"Container": name})
            assert joined.status_code in (404, 501), joined.text
        bob.delete(f"/networks/{joint}")
        for name in things.containers:
            assert bob.post("/commit", params={"container": name}).status_code in (404, 501)


def test_prunes_take_only_ones_own(tenants: tuple[Tenant, Tenant], things: Things) -> None:
    with _client(tenants[1]) as bob:
        for kind in ("containers", "images", "networks", "volumes", "build"):
            filters = json.dumps({"dangling": ["false"], "all": ["true"]})
            query = {"filters": filters} if kind in ("images", "volumes") else {}
            answer = bob.post(f"/{kind}/prune", params=query)
            assert answer.status_code in (200, 400, 501), answer.text
            assert not [text for text in things.secrets_besides() if text in answer.text]


def test_nobody_is_served_without_an_identity(tenants: tuple[Tenant, Tenant]) -> None:
    with tenants[0].http("") as nobody, tenants[0].http("lft_000000000000_" + "0" * 48) as forged:
        for method, path in ENGINE_ROUTES:
            for client in (nobody, forged):
                answer = _ask(client, method, path, "some")
                assert answer.status_code == 401, f"{method} {path}"
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                if method != "HEAD":
                    assert answer.json().keys() == {"message"}


def test_only_operators_with_the_scope_act_for_another(tenants: tuple[Tenant, Tenant]) -> None:
    ann, bob = tenants
    create = ("token", "create", "--tenant", "operators", "--expires", "5m", "--scopes")
    helper, chief = (
        ann.fleet.labfleet(*create, scopes).out.strip() for scopes in ("read,run", "read,admin")
    )
    for token, header, status in (
        (bob.token, "ann", 403),
        (bob.token, "operators", 403),
        (bob.token, "bob", 200),
        (helper, "ann", 403),
        (chief, "ann", 200),
        (chief, "nobody", 403),
        (chief, "../ann", 403),
    ):
        with _client(ann, token) as client:
            answer = client.get("/containers/json", headers={"Labfleet-Tenant": header})
            assert answer.status_code == status, f"{header}: {answer.text}"
            assert "ann" not in answer.text or header.endswith("ann")


def test_paths_of_a_host_are_for_operators_with_the_scope(tenants: tuple[Tenant, Tenant]) -> None:
    ann = tenants[0]
    create = ("token", "create", "--tenant", "operators", "--expires", "5m", "--scopes")
    runner, chief = (
        ann.fleet.labfleet(*create, scopes).out.strip() for scopes in ("read,run", "run,admin")
    )
    body = {"Image": "busybox", "HostConfig": {"Binds": ["/etc:/host:ro"]}}
    for token, headers, status in (
        (ann.token, {}, 403),
        (runner, {}, 403),
        (chief, {"Labfleet-Tenant": "ann"}, 403),
        (chief, {}, 201),
    ):
        with _client(ann, token) as client:
            answer = client.post("/containers/create", json=body, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 201:
                client.delete(f"/containers/{answer.json()['Id']}")


@pytest.mark.parametrize("scope", list(Scope)[:4])
def test_a_scope_opens_nothing_else(tenants: tuple[Tenant, Tenant], scope: Scope) -> None:
    create = ("token", "create", "--tenant", "bob", "--scopes", scope, "--expires", "5m")
    token = tenants[1].fleet.labfleet(*create).out.strip()
    with _client(tenants[1], token) as bob:
        for method, path in ENGINE_ROUTES:
            rule = rule_of(method, re.sub(r"\{\w+\}", "some", path))
            assert rule is not None
            if scope not in rule.any_of or rule.operators_only:
                answer = _ask(bob, method, path, "some")
                assert answer.status_code == 403, f"{method} {path}: {answer.text}"
