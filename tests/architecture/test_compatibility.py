"""`docs/compatibility.md` says what the code does: every route and field stands there once, and truly."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.openapi.utils import get_openapi

from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.body import Body
from labfleet_api.core.engine_routes import ENGINE_ROUTES, refusal
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.service.application import routes
from labfleet_image_store.service import registry

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"\| `(?P<name>[^`]+)` \| (?P<state>[^|]+) \|(?P<words>[^|]*)\|")
SERVED = ("done", "differs")
MISSING = ("not yet (501)", "refused by design")


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """Rows of the page by the title of their section: name, state, sentence."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    title = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
            found[title] = []
        elif row := ROW.fullmatch(line):
            found[title].append((row["name"], row["state"].strip(), row["words"].strip()))
    return found


def engine_rows() -> list[tuple[str, str, str]]:
    return [
        row
        for rows in sections().values()
        for row in rows
        if re.match(r"[A-Z]+ /", row[0]) and "/v2/" not in row[0]
    ]


def plain(route: str) -> str:
    """A route without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", route)


def served_routes() -> set[str]:
    """Method and path of every route that the application has; the routers only keep the fleet."""
    app = routes(cast("Any", SimpleNamespace(chassis=SimpleNamespace(log=None))))
    document = get_openapi(title="", version="", routes=app.routes)
    return {
        plain(f"{method.upper()} {path}")
        for path, methods in document["paths"].items()
        for method in methods
    }


def test_every_route_of_the_engine_stands_there_once() -> None:
    names = Counter(name for name, _, _ in engine_rows())
    assert names == Counter(f"{method} {path}" for method, path in ENGINE_ROUTES)


def test_done_and_differs_are_the_routes_that_are_served() -> None:
    said = {plain(name) for name, state, _ in engine_rows() if state in SERVED}
    assert said == served_routes()


def test_the_others_are_answered_with_501() -> None:
    for name, state, _ in engine_rows():
        if state not in SERVED:
            assert state in MISSING, name
            method, path = re.sub(r"\{\w+\}", "x", name).split()
            expected = 503 if name == "POST /swarm/leave" else 501
            assert refusal(method, path)[0] == expected, name


def test_what_differs_or_is_missing_by_design_is_explained() -> None:
    for name, state, words in engine_rows():
        assert words or state in ("done", "not yet (501)"), name


@pytest.mark.parametrize(
    ("title", "model"),
    [("Fields of `POST /containers/create`", CreateBody), ("`HostConfig`", HostConfigBody)],
)
def test_every_field_stands_there_once(title: str, model: type[Body]) -> None:
    names = [name for name, _, _ in sections()[title]]
    assert sorted(names) == sorted(model.model_fields)


def test_every_route_of_the_registry_stands_there_once() -> None:
    rows = sections()["Routes of the OCI registry"]
    said = Counter(plain(name) for name, _, _ in rows)
    served = Counter()
    for kind, pattern in registry._ROUTES:
        path = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern.pattern).removesuffix("?")
        for method in ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"):
            own = hasattr(registry.Registry, f"_{kind}_{method.lower()}")
            if own or (method == "HEAD" and kind in ("blob", "manifest")):
                served[plain(f"{method} {path}")] += 1
    assert said == served
