"""Who may do what at the registry: bearer tokens, robots, what the operators share."""

import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant

from labfleet_chassis.bus import Bus
from labfleet_cli.memory import with_bus, with_tenancy
from labfleet_cli.sharing import decide
from labfleet_cli.tenancy import Tenancy
from labfleet_proto.registry_access import RepositoryGrant, checked_actions

Two = tuple[Tenant, Tenant]
OCI = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def base(fleet: Fleet) -> str:
    return f"http://{fleet.plan.registry}/v2"


def challenge_of(answer: httpx.Response) -> dict[str, str]:
    scheme, _, rest = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


def bearer(base: str, secret: str, *scopes: str, user: str = "any") -> dict[str, str]:
    """Headers with a bearer token for the scopes."""
    answer = httpx.get(f"{base}/token", params={"scope": list(scopes)}, auth=(user, secret))
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def push(base: str, name: str, auth: tuple[str, str], tag: str = "1") -> tuple[str, str]:
    """An artifact of one blob; digests of its blob and manifest."""
    config, blob = b"{}", secrets.token_bytes(64)
    with httpx.Client(auth=auth) as client:
        for data in (config, blob):
            client.post(
                f"{base}/{name}/blobs/uploads/", params={"digest": digest_of(data)}, content=data
            ).raise_for_status()
        body = manifest_of(config, blob)
        client.put(
            f"{base}/{name}/manifests/{tag}", content=body, headers={"Content-Type": OCI}
        ).raise_for_status()
    return digest_of(blob), digest_of(body)


def manifest_of(config: bytes, blob: bytes) -> bytes:
    parts = [
        {"mediaType": "application/x", "digest": digest_of(data), "size": len(data)}
        for data in (config, blob)
    ]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI, "config": parts[0], "layers": parts[1:]}
    ).encode()


def made(fleet: Fleet, *wishes: tuple[tuple[str, ...], str, str]) -> list[str]:
    """Tokens of ann's, by scopes, or robots, by pattern and actions; made without the command line's start."""

    async def work(tenancy: Tenancy) -> list[str]:
        found = []
        for scopes, pattern, allow in wishes:
            grant = RepositoryGrant(
                pattern=pattern or "none",
                actions=checked_actions(allow.split(",") if allow else ("pull",)),
            )
            grants = (grant,) if pattern else ()
            found.append((await tenancy.create_token("ann", scopes, None, "", grants))[1])
        return found

    return with_tenancy(fleet.plan, work)


def revoke(fleet: Fleet, *secrets_: str) -> None:
    async def work(tenancy: Tenancy) -> None:
        for each in secrets_:
            await tenancy.revoke(each)

    with_tenancy(fleet.plan, work)


# -- the token server


def test_a_401_says_where_to_get_a_token_for_what(base: str) -> None:
    asked = {
        ("GET", "/lab/box/manifests/1"): "repository:lab/box:pull",
        ("POST", "/lab/box/blobs/uploads/"): "repository:lab/box:pull,push",
        ("DELETE", "/lab/box/manifests/1"): "repository:lab/box:delete",
        ("GET", "/_catalog"): "registry:catalog:*",
    }
    for (method, path), scope in asked.items():
        answer = httpx.request(method, base + path)
        assert answer.status_code == 401
        found = challenge_of(answer)
        assert found == {"realm": f"{base}/token", "service": "labfleet", "scope": scope}
        assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert "scope" not in challenge_of(httpx.get(f"{base}/"))
    hostile = httpx.get(f"{base}/a%22%0d%0ax:y%22/manifests/1")
    assert "scope" not in challenge_of(hostile)
    named = httpx.get(f"{base}/", headers={"Host": "store.example.org:8443"})
    assert challenge_of(named)["realm"] == "http://store.example.org:8443/v2/token"


def test_the_token_server_answers_get_and_post(base: str, tenants: Two) -> None:
    ann, _ = tenants
    scope = "repository:lab/box:pull,push repository:lab/other:pull"
    wrong = httpx.get(f"{base}/token", params={"scope": scope}, auth=("ann", "wrong"))
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")
    assert httpx.get(f"{base}/token").status_code == 401
    got = httpx.get(f"{base}/token", params={"scope": scope, "offline_token": "true"},
                    auth=("ann", ann.token))  # fmt: skip
    document = got.json()
    assert document["token"] == document["access_token"]
    assert document["expires_in"] == 300
    assert document["scope"] == scope
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["issued_at"])
    refresh = document["refresh_token"]
    form = {"grant_type": "password", "username": "ann", "password": ann.token, "scope": scope}
    posted = httpx.post(f"{base}/token", data={**form, "access_type": "offline"})
    assert posted.status_code == 200
    assert posted.json()["refresh_token"]
    again = httpx.post(f"{base}/token", data={
        "grant_type": "refresh_token", "refresh_token": refresh, "scope": scope})  # fmt: skip
    assert again.json()["scope"] == scope
    with_it = {"Authorization": f"Bearer {again.json()['access_token']}"}
    assert httpx.get(f"{base}/", headers=with_it).status_code == 200
    for text in (refresh, "lft_x", "lfb_e30.00"):  # a refresh token is for the token server alone
        refused = httpx.get(f"{base}/", headers={"Authorization": f"Bearer {text}"})
        assert challenge_of(refused)["error"] == "invalid_token"
    for data, code in (
        ({"grant_type": "client_credentials"}, 400),
        ({**form, "password": "wrong"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": document["token"]}, 401),
    ):
        assert httpx.post(f"{base}/token", data=data).status_code == code
    for access in (document["token"], refresh):  # neither is a password: it would live for ever
        assert httpx.get(f"{base}/token", auth=("ann", access)).status_code == 401
        assert httpx.get(f"{base}/", auth=("ann", access)).status_code == 401


def test_a_bearer_token_is_for_its_repositories_and_actions(base: str, tenants: Two) -> None:
    ann, _ = tenants
    push(base, "lab/mine", ("ann", ann.token))
    reader = bearer(base, ann.token, "repository:lab/mine:pull")
    url = f"{base}/lab/mine/manifests/1"
    assert httpx.get(url, headers=reader).status_code == 200
    for method, path in (
        ("DELETE", "/lab/mine/manifests/1"),
        ("POST", "/lab/mine/blobs/uploads/"),
        ("GET", "/busybox/manifests/latest"),
        ("GET", "/_catalog"),
    ):
        answer = httpx.request(method, base + path, headers=reader)
        assert answer.status_code == 401, path
        found = challenge_of(answer)
        assert found["error"] == "insufficient_scope"
        better = bearer(base, ann.token, found["scope"])
        assert httpx.request(method, base + path, headers=better).status_code in (200, 202)


@pytest.mark.usefixtures("tenants")
def test_a_revoked_token_takes_its_bearer_tokens_along(fleet: Fleet, base: str) -> None:
    (secret,) = made(fleet, ((), "", ""))
    headers = bearer(base, secret, "repository:busybox:pull")
    offline = httpx.get(
        f"{base}/token", params={"offline_token": "true"}, auth=("any", secret)
    ).json()["refresh_token"]
    url = f"{base}/busybox/manifests/latest"
    assert httpx.get(url, headers=headers).status_code == 200
    fleet.labfleet("token", "revoke", secret)
    until(lambda: httpx.get(url, headers=headers).status_code == 401, 5)
    form = {"grant_type": "refresh_token", "refresh_token": offline}
    assert httpx.post(f"{base}/token", data=form).status_code == 401


# -- blobs of other repositories


def test_a_blob_is_mounted_only_with_rights_on_both_repositories(base: str, tenants: Two) -> None:
    ann, bob = tenants
    blob, _ = push(base, "lab/from", ("ann", ann.token))
    push(base, "lab/to", ("ann", ann.token))
    ways = {"mount": blob, "from": "lab/from"}
    for name in ("lab/to", "busybox"):
        for method in ("HEAD", "GET"):
            path = f"{base}/{name}/blobs/{blob}"
            assert httpx.request(method, path, auth=("ann", ann.token)).status_code == 404
    one = bearer(base, ann.token, "repository:lab/to:pull,push")
    both = bearer(base, ann.token, "repository:lab/to:pull,push", "repository:lab/from:pull")
    source = bearer(base, ann.token, "repository:lab/from:pull,push")
    uploads = f"{base}/lab/to/blobs/uploads/"
    assert httpx.post(uploads, params=ways, headers=source).status_code == 401
    assert httpx.post(uploads, params=ways, headers=one).status_code == 202
    assert httpx.head(f"{base}/lab/to/blobs/{blob}", headers=one).status_code == 404
    foreign = httpx.post(uploads, params=ways, auth=("bob", bob.token))
    assert foreign.status_code == 202
    assert httpx.post(uploads, params=ways, headers=both).status_code == 201
    assert httpx.head(f"{base}/lab/to/blobs/{blob}", headers=one).status_code == 200
    assert httpx.get(f"{base}/lab/to/blobs/{blob}", auth=("bob", bob.token)).status_code == 404


# -- robots


def test_a_robot_is_made_listed_used_and_revoked(fleet: Fleet, base: str, tenants: Two) -> None:
    ann, _ = tenants
    words = ("--tenant", "ann", "--repository", "ci/*", "--note", "build server")
    create = ("robot", "create", *words, "--expires", "1h", "--allow")
    robot = fleet.labfleet(*create, "pull,push").out.strip()
    listed = fleet.labfleet("robot", "ls", "--tenant", "ann").out
    assert "ci/*" in listed
    assert "pull,push" in listed
    assert robot not in listed
    push(base, "ci/box", ("robot", robot))
    with ann.http(robot) as http:  # nothing of the Docker API
        for method, path in (("GET", "/containers/json"), ("GET", "/images/json"), ("GET", "/info"),
                             ("POST", "/containers/create"), ("POST", "/images/create")):  # fmt: skip
            assert http.request(method, path, json={}).status_code == 403, path
    login = ("login", "-u", "robot", "--password-stdin", fleet.plan.registry)
    assert "Login Succeeded" in ann.docker(*login, stdin=robot.encode()).out
    ann.docker("logout", fleet.plan.registry)
    fleet.labfleet("robot", "revoke", robot.split("_")[1])
    url = f"{base}/ci/box/manifests/1"
    until(lambda: httpx.get(url, auth=("robot", robot)).status_code == 401, 5)
    assert "there are pull, push, delete" in fleet.labfleet(*create, "fly", code=1).out


def test_skopeo_as_a_robot(fleet: Fleet, tenants: Two) -> None:
    """Skopeo gets bearer tokens: it is refused in words, and by the registry."""
    ann, _ = tenants
    store = f"docker://{fleet.plan.registry}"
    ann.docker("tag", "busybox", "ci/box:1")
    (robot,) = made(fleet, ((), "ci/*", "pull,push"))

    def skopeo(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            ["skopeo", *words], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false",
                "--src-creds", f"robot:{robot}", "--dest-creds", f"robot:{robot}")  # fmt: skip
    assert skopeo("copy", *insecure, f"{store}/ci/box:1", f"{store}/ci/copy:1")[0] == 0
    code, said = skopeo("copy", *insecure, f"{store}/ci/box:1", f"{store}/other/box:1")
    assert code != 0
    assert "denied" in said or "403" in said
    code, said = skopeo("delete", "--tls-verify=false", "--creds", f"robot:{robot}", f"{store}/ci/copy:1")  # fmt: skip
    assert code != 0
    assert "denied" in said or "403" in said
    own = ("--tls-verify=false", "--creds", f"ann:{ann.token}")
    assert skopeo("delete", *own, f"{store}/ci/copy:1")[0] == 0
    ann.docker("rmi", "ci/box:1")
    revoke(fleet, robot)


# -- what is shared


def test_operators_share_what_they_want(fleet: Fleet, base: str, tenants: Two) -> None:
    ann, _ = tenants

    def status(path: str) -> int:
        return httpx.get(f"{base}/{path}", auth=("ann", ann.token)).status_code

    async def restore(bus: Bus) -> None:
        await decide(bus, "*", is_shared=True)
        await decide(bus, "course/exam", is_shared=True)
        await decide(bus, "course/*", is_shared=False)
        await decide(bus, "course/exam", is_shared=False)

    fleet.docker("tag", "busybox", "course/spark:1")
    fleet.docker("tag", "busybox", "course/exam:1")
    assert status("course/spark/manifests/1") == 404
    try:
        fleet.labfleet("image", "share", "course/*")
        fleet.labfleet("image", "unshare", "course/exam")
        until(lambda: status("course/spark/manifests/1") == 200, 5)
        assert status("course/exam/manifests/1") == 404
        assert ann.docker("run", "--rm", "course/spark:1", "echo", "shared").out == "shared"
        assert "No such image" in ann.docker("image", "inspect", "course/exam:1", code=1).err
        assert "read-only" in ann.docker("rmi", "course/spark:1", code=1).err
        listed = fleet.labfleet("image", "list-shared").out
        assert re.search(r"course/\*\s+yes", listed)
        assert re.search(r"course/exam\s+no", listed)
        fleet.labfleet("image", "unshare", "*")
        until(lambda: status("busybox/manifests/latest") == 404, 5)
    finally:
        with_bus(fleet.plan, restore)
    until(lambda: status("busybox/manifests/latest") == 200, 5)
    assert status("course/spark/manifests/1") == 404
    assert fleet.labfleet("image", "list-shared").out.split() == ["REPOSITORIES", "SHARED", "*", "yes"]  # fmt: skip
    for name in ("course/spark:1", "course/exam:1"):
        fleet.docker("rmi", name)


# -- every action by every kind of credential

ACTIONS = ("list", "pull own", "pull shared", "push", "delete", "engine")
ALLOWED = {
    "nobody": "",
    "a wrong token": "",
    "a full token": "list, pull own, pull shared, push, delete, engine",
    "a reading token": "list, pull own, pull shared, engine",
    "a running token": "list, pull own, pull shared",
    "a making token": "list, pull own, pull shared, push, delete",
    "a robot that pulls": "list, pull own",
    "a robot that pushes": "list, pull own, push",
    "a robot that deletes": "list, pull own, delete",
    "a robot for others": "list",
    "another tenant": "list, pull shared, push, engine",
    "a bearer token that pulls": "pull own",
    "a bearer token that pushes": "pull own, push",
    "a bearer token of a robot": "pull own",
}
"""A bearer token of `pull` lists nothing: `_catalog` is a scope of its own."""


@pytest.fixture
def credentials(fleet: Fleet, base: str, tenants: Two) -> Iterator[dict[str, str]]:
    """Authorization headers by kind of credential."""
    ann, bob = tenants

    wishes: dict[str, tuple[tuple[str, ...], str, str]] = {
        "a reading token": (("read",), "", ""),
        "a running token": (("run",), "", ""),
        "a making token": (("images",), "", ""),
        "a robot that pulls": ((), "matrix/*", "pull"),
        "a robot that pushes": ((), "matrix/*", "pull,push"),
        "a robot that deletes": ((), "matrix/*", "pull,delete"),
        "a robot for others": ((), "elsewhere/**", "pull,push,delete"),
    }
    own = dict(zip(wishes, made(fleet, *wishes.values()), strict=True))
    every_one = {
        **own,
        "a wrong token": ann.token[:-1] + ("0" if ann.token[-1] != "0" else "1"),
        "a full token": ann.token,
        "another tenant": bob.token,
    }
    headers = {kind: f"Bearer {secret}" for kind, secret in every_one.items()}
    scope = "repository:matrix/box:"
    every = f"{scope}pull,push,delete"
    for kind, secret, wish in (
        ("a bearer token that pulls", ann.token, f"{scope}pull"),
        ("a bearer token that pushes", ann.token, f"{scope}pull,push"),
        ("a bearer token of a robot", own["a robot that pulls"], every),
    ):
        headers[kind] = bearer(base, secret, wish)["Authorization"]
    yield {"nobody": "", **headers}
    revoke(fleet, *own.values())


def test_every_action_by_every_kind_of_credential(
    base: str, tenants: Two, credentials: dict[str, str]
) -> None:
    ann, bob = tenants
    own = ("ann", ann.token)
    found = {}
    for kind, authorization in credentials.items():
        headers = {"Authorization": authorization} if authorization else {}
        _, digest = push(base, "matrix/box", own)
        with httpx.Client(headers=headers) as client, ann.http("") as engine:
            said = {
                "list": client.get(f"{base}/_catalog"),
                "pull own": client.get(f"{base}/matrix/box/manifests/1"),
                "pull shared": client.get(f"{base}/busybox/manifests/latest"),
                "push": client.post(f"{base}/matrix/box/blobs/uploads/"),
                "delete": client.delete(f"{base}/matrix/box/manifests/{digest}"),
                "engine": engine.get("/containers/json", headers=headers),
            }
        assert set(said) == set(ACTIONS)
        for action, answer in said.items():
            assert answer.status_code in (200, 202, 401, 403, 404), (kind, action, answer.text)
        found[kind] = ", ".join(a for a in ACTIONS if said[a].status_code in (200, 202))
    assert found == ALLOWED
    assert httpx.get(f"{base}/matrix/box/tags/list", auth=("bob", bob.token)).status_code == 404
