"""Whom to ask, in which order, as whom; and what it means when nobody has it."""

import pytest

from labfleet_image_store.core import challenges, platforms, pull_lines, upstreams
from labfleet_image_store.core.manifests import DOCKER_LIST, Manifest, parse
from labfleet_image_store.core.upstreams import Health, Trouble, Upstream, UpstreamError
from labfleet_proto.errors import (
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from labfleet_proto.upstreams import RegistryLogin, UpstreamRecord

NOBODY = RegistryLogin()
ANN = RegistryLogin(username="ann", password="word")
A, B = Upstream("a", "http://a"), Upstream("b", "http://b")


def _record(name: str, registry: str, position: int = 1) -> UpstreamRecord:
    return UpstreamRecord(
        name=name,
        url=f"https://{name}.lab:5000",
        registry=registry,
        position=position,
        username="u",
        password="p",
    )


RECORDS = [_record("two", "docker.io", 2), _record("one", "docker.io"), _record("q", "quay.io")]


def _route(registry: str, login: RegistryLogin, *, is_operator: bool = False) -> upstreams.Route:
    found = upstreams.route(RECORDS, registry, login, "print", is_any_allowed=is_operator)
    assert found is not None
    return found


def test_mirrors_are_asked_in_the_operators_order_as_whom_they_say() -> None:
    route = _route("docker.io", ANN)
    assert [each.name for each in route.upstreams] == ["one", "two"]
    assert {each.login.username for each in route.upstreams} == {"u"}
    assert route.key == "docker.io"


def test_a_clients_login_goes_only_to_the_registry_that_the_name_says() -> None:
    assert _route("quay.io", ANN).upstreams[0].login.username == "u"
    named = _route("q.lab:5000", ANN)
    assert named.upstreams[0].login == ANN
    assert named.key == "q.lab:5000_print"
    assert _route("q.lab:5000", NOBODY).key == "q.lab:5000"


def test_only_operators_reach_what_is_not_configured() -> None:
    asked = (RECORDS, "10.0.0.1:80", NOBODY, "print")
    assert upstreams.route(*asked, is_any_allowed=False) is None
    assert upstreams.route([], "docker.io", NOBODY, "print", is_any_allowed=True) is None
    assert [each.url for each in _route("x.lab", NOBODY, is_operator=True).upstreams] == [
        "https://x.lab"
    ]
    urls = [each.url for each in _route("localhost:1", ANN, is_operator=True).upstreams]
    assert urls == ["http://localhost:1", "https://localhost:1"]


def test_who_failed_rests_longer_each_time_and_is_asked_last() -> None:
    failed = UpstreamError(Trouble.FAILED, "refused")
    once = upstreams.after_trouble(Health(), failed, 100)
    twice = upstreams.after_trouble(once, failed, 100)
    assert (once.rests_until_s, twice.rests_until_s) == (101, 102)
    for _ in range(20):
        twice = upstreams.after_trouble(twice, failed, 100)
    assert twice.rests_until_s == 160
    assert upstreams.in_order([A, B], {"a": once}, 100.5) == [B, A]
    assert upstreams.in_order([A, B], {"a": once}, 101) == [A, B]
    assert upstreams.in_order([A, B], {"a": twice, "b": once}, 100) == [B, A]


def test_who_lacks_something_is_well_and_who_is_asked_too_much_rests_as_it_says() -> None:
    sick = Health(3, 200, "refused")
    for trouble in (Trouble.ABSENT, Trouble.DENIED):
        assert upstreams.after_trouble(sick, UpstreamError(trouble, "no"), 100) == Health()
    limited = UpstreamError(Trouble.LIMITED, "429", retry_after_s=30)
    assert upstreams.after_trouble(Health(), limited, 100).rests_until_s == 130
    limited.retry_after_s = 86_400
    assert upstreams.after_trouble(Health(), limited, 100).rests_until_s == 400


@pytest.mark.parametrize(
    ("troubles", "kind", "words"),
    [
        ([(A, Trouble.ABSENT, "NAME_UNKNOWN")], NotFoundError, "pull access denied for x"),
        ([(A, Trouble.ABSENT, "MANIFEST_UNKNOWN")], NotFoundError, "manifest for x:1 not found"),
        ([(A, Trouble.DENIED, "")], NotFoundError, "docker login"),
        ([(A, Trouble.FAILED, ""), (B, Trouble.ABSENT, "")], NotFoundError, "a: words"),
        ([(A, Trouble.FAILED, ""), (B, Trouble.LIMITED, "")], UnavailableError, "b: words"),
        ([(A, Trouble.LIMITED, "")], RateLimitedError, "toomanyrequests"),
    ],
)
def test_the_verdict_has_dockers_words(
    troubles: list[tuple[Upstream, Trouble, str]], kind: type[Exception], words: str
) -> None:
    found = [(each, UpstreamError(trouble, "words", code=code)) for each, trouble, code in troubles]
    error = upstreams.verdict("x:1", "x", found)
    assert type(error) is kind
    assert words in error.message


def test_official_names_are_in_library_there() -> None:
    assert upstreams.remote_paths("docker.io", "busybox") == ("library/busybox", "busybox")
    assert upstreams.remote_paths("docker.io", "lab/web") == ("lab/web",)
    assert upstreams.remote_paths("quay.io", "web") == ("web",)


def test_challenges_are_read() -> None:
    header = (
        'Basic realm="x, y", Bearer realm="https://auth/token",service=hub, scope="a:b:pull,push"'
    )
    found = challenges.parse([header])
    assert [each.scheme for each in found] == ["basic", "bearer"]
    best = challenges.best(found)
    assert best is not None
    assert best.get("realm") == "https://auth/token"
    assert best.get("scope") == "a:b:pull,push"
    assert challenges.best(challenges.parse(["Negotiate", "Digest x"])) is None
    plain = challenges.best(challenges.parse(["Basic"]))
    assert plain is not None
    assert plain.scheme == "basic"
    assert challenges.best(challenges.parse(["Bearer service=x"])) is None


def _index(*machines: tuple[str, str, str]) -> Manifest:
    rows = ",".join(
        f'{{"mediaType":"m","digest":"sha256:{number:064x}","size":1,'
        f'"platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}}}'
        for number, (os, arch, variant) in enumerate(machines)
    )
    text = f'{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{rows}]}}'
    return parse(text.encode(), "")


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("", 0), ("linux/amd64", 0), ("linux/arm64", 2), ("arm64", 2), ("linux/arm/v6", 3),
     ("linux/arm", 4), ("linux/arm/v7", 4), ("windows/amd64", 5)],
)  # fmt: skip
def test_the_child_for_a_machine_is_found(wanted: str, number: int) -> None:
    index = _index(
        ("linux", "amd64", ""),
        ("linux", "amd64", "v3"),
        ("linux", "arm64", "v8"),
        ("linux", "arm", "v6"),
        ("linux", "arm", "v7"),
        ("windows", "amd64", ""),
    )
    child = platforms.child_for(index, platforms.parse(wanted))
    assert int(child.digest.removeprefix("sha256:"), 16) == number


def test_a_machine_that_no_child_is_for_is_named() -> None:
    with pytest.raises(NotFoundError, match="no matching manifest for linux/s390x"):
        platforms.child_for(_index(("linux", "amd64", "")), platforms.parse("linux/s390x"))
    with pytest.raises(InvalidRequestError):
        platforms.parse("linux/")


@pytest.mark.parametrize(
    ("current", "total", "bar"),
    [
        (0, 3_000_000, "[>" + " " * 49 + "]       0B/3MB"),
        (1_500_000, 3_000_000, "[" + "=" * 25 + ">" + " " * 24 + "]    1.5MB/3MB"),
        (3_000_000, 3_000_000, "[" + "=" * 50 + "]      3MB/3MB"),
        (12_345, 0, "12.35kB"),
    ],
)
def test_the_bar_is_dockers(current: int, total: int, bar: str) -> None:
    assert pull_lines.bar(current, total) == bar
