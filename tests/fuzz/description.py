"""A description of the served routes, for programs that send what it allows and what it does not.

Methods, paths and bodies come from the code; names of query parameters from the table below.
"""

import re
from types import SimpleNamespace
from typing import Any, cast

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from labfleet_api.core.bodies import CreateBody, ExecBody, ExecStartBody
from labfleet_api.core.engine_routes import ENGINE_ROUTES
from labfleet_api.core.place_bodies import NetworkBody, VolumeBody
from labfleet_api.service.application import routes

BODIES: dict[str, type[BaseModel]] = {
    "POST /containers/create": CreateBody,
    "POST /containers/{id}/exec": ExecBody,
    "POST /exec/{id}/start": ExecStartBody,
    "POST /networks/create": NetworkBody,
    "POST /volumes/create": VolumeBody,
}
JSON_BODIES = frozenset({
    "POST /containers/{id}/update", "POST /networks/{id}/connect", "POST /networks/{id}/disconnect",
    "POST /auth", "POST /commit", "POST /nodes/{id}/update",
})  # fmt: skip
TAR_BODIES = frozenset({"PUT /containers/{id}/archive", "POST /build", "POST /images/load"})

FILTERS = ["{", "[]", "null", '{"label":["a"]}', '{"label":{"a":true}}', '{"id":[]}', '{"name":["["]}',
           '{"dangling":["true"]}', '{"dangling":["maybe"]}', '{"until":["1h"]}', '{"until":["x"]}',
           '{"status":["exited"]}', '{"status":["x"]}', '{"before":["fuzzed"]}', '{"x":["y"]}']  # fmt: skip
TIMES = [
    "0",
    "-1",
    "1.5",
    "1700000000.000000001",
    "2026-01-01T00:00:00Z",
    "10m",
    "x",
    "99999999999999999999",
]
NUMBERS = ["0", "1", "-1", "all", "x", "99999999999999999999", "1e3"]
BOOLEANS = ["0", "1", "true", "False", "", "x"]
WORDS = ["", "a", "/", "..", "/tmp", "/etc/passwd", "/proc/1/mem", "a" * 300, "é", "\u0000", "a b"]

QUERIES: dict[str, dict[str, list[str] | None]] = {
    "GET /containers/json": {"all": BOOLEANS, "limit": NUMBERS, "size": BOOLEANS, "filters": FILTERS},
    "POST /containers/create": {"name": None, "platform": WORDS},
    "GET /containers/{id}/json": {"size": BOOLEANS},
    "GET /containers/{id}/top": {"ps_args": ["-ef", "aux", "-o pid", "-o x", "; id", ""]},
    "GET /containers/{id}/logs": {
        "stdout": BOOLEANS, "stderr": BOOLEANS, "tail": NUMBERS, "since": TIMES, "until": TIMES,
        "timestamps": BOOLEANS, "details": BOOLEANS, "follow": ["0"],
    },
    "POST /containers/{id}/resize": {"h": NUMBERS, "w": NUMBERS},
    "POST /containers/{id}/start": {"detachKeys": WORDS},
    "POST /containers/{id}/stop": {"t": ["0", "x", "1.5"], "signal": ["KILL", "SIGX", "99", ""]},
    "POST /containers/{id}/restart": {"t": ["0", "x"], "signal": ["KILL", "SIGX"]},
    "POST /containers/{id}/kill": {"signal": ["KILL", "SIGX", "99", "", "-1"]},
    "POST /containers/{id}/rename": {"name": ["", "/", "a", "fuzzed"]},
    "POST /containers/{id}/wait": {"condition": ["not-running", "x", ""]},
    "DELETE /containers/{id}": {"v": BOOLEANS, "force": BOOLEANS, "link": BOOLEANS},
    "HEAD /containers/{id}/archive": {"path": WORDS},
    "GET /containers/{id}/archive": {"path": WORDS},
    "PUT /containers/{id}/archive": {
        "path": WORDS, "noOverwriteDirNonDir": BOOLEANS, "copyUIDGID": BOOLEANS,
    },
    "POST /containers/prune": {"filters": FILTERS},
    "POST /exec/{id}/resize": {"h": NUMBERS, "w": NUMBERS},
    "GET /images/json": {"all": BOOLEANS, "filters": FILTERS, "digests": BOOLEANS},
    "POST /images/create": {
        "fromImage": [*WORDS, "busybox", "nosuch"], "tag": [*WORDS, "latest"], "platform": WORDS,
    },
    "POST /images/{name}/tag": {"repo": [*WORDS, "lab/x"], "tag": [*WORDS, "1"]},
    "POST /images/{name}/push": {"tag": WORDS},
    "DELETE /images/{name}": {"force": BOOLEANS, "noprune": BOOLEANS},
    "GET /images/search": {"term": WORDS, "limit": NUMBERS, "filters": FILTERS},
    "GET /images/get": {"names": [*WORDS, "nosuch"]},
    "POST /images/prune": {"filters": FILTERS},
    "POST /build": {
        "t": WORDS, "dockerfile": WORDS, "buildargs": FILTERS, "labels": FILTERS, "ulimits": FILTERS,
        "remote": ["", "x", "file:///etc", "http://127.0.0.1:1/x", "http://127.0.0.1:1/x.git#y:z", "git@x:y"],
        "networkmode": ["", "none", "host", "nosuch"], "memory": NUMBERS, "extrahosts": WORDS,
    },
    "POST /build/prune": {"all": BOOLEANS, "filters": FILTERS},
    "POST /commit": {"container": ["fuzzed", "nosuch", ""], "repo": WORDS, "tag": WORDS, "changes": ["X", "CMD ["]},
    "GET /system/df": {"type": ["container", "x"]},
    "GET /volumes": {"filters": FILTERS},
    "DELETE /volumes/{name}": {"force": BOOLEANS},
    "POST /volumes/prune": {"filters": FILTERS},
    "GET /networks": {"filters": FILTERS},
    "GET /networks/{id}": {"verbose": BOOLEANS, "scope": ["local", "x"]},
    "POST /networks/prune": {"filters": FILTERS},
    "GET /nodes": {"filters": FILTERS},
    "POST /nodes/{id}/update": {"version": NUMBERS},
}  # fmt: skip
REQUIRED: dict[str, dict[str, list[str]]] = {
    "GET /events": {"until": ["1", "x", "-1"], "since": TIMES, "filters": FILTERS},
    "GET /containers/{id}/stats": {"stream": ["0", "false"]},
}
"""Parameters without which a route goes on for ever."""

ENDLESS = frozenset({"GET /containers/{id}/attach/ws"})


def description(containers: list[str]) -> dict[str, Any]:
    """OpenAPI 3 of what is served; `containers` are ids and names that exist."""
    app = routes(cast("Any", SimpleNamespace(chassis=SimpleNamespace(log=None))))
    served = get_openapi(title="Labfleet", version="1.50", routes=app.routes)["paths"]
    templates = {_nameless(method, path): path for method, path in ENGINE_ROUTES}
    paths: dict[str, Any] = {}
    for path, methods in served.items():
        for method in methods:
            plain = templates[_nameless(method.upper(), path)]
            route = f"{method.upper()} {plain}"
            if route not in ENDLESS:
                paths.setdefault(plain, {})[method] = _operation(route, plain, containers)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Labfleet", "version": "1.50"},
        "paths": paths,
    }


def _nameless(method: str, path: str) -> str:
    """A route without the names of its parameters."""
    return f"{method} {re.sub(r'{[^}]*}', '{}', path)}"


def _operation(route: str, path: str, containers: list[str]) -> dict[str, Any]:
    parameters = [
        _parameter(name, "path", _known(route, containers), is_required=True)
        for name in ("id", "name")
        if f"{{{name}}}" in path
    ]
    wishes = QUERIES.get(route, {})
    parameters += [
        _parameter(name, "query", values, is_required=False) for name, values in wishes.items()
    ]
    parameters += [
        _parameter(name, "query", values, is_required=True, is_free=False)
        for name, values in REQUIRED.get(route, {}).items()
    ]
    found: dict[str, Any] = {
        "operationId": route,
        "parameters": parameters,
        "responses": {"default": {"description": "an answer"}},
    }
    if content := _content(route):
        found["requestBody"] = {"required": False, "content": content}
    return found


def _known(route: str, containers: list[str]) -> list[str]:
    if route.startswith("DELETE") or "/containers/" not in route:
        return ["nosuch", "a" * 64]
    return [*containers, *containers, "nosuch", "a" * 64]


def _parameter(
    name: str, place: str, values: list[str] | None, *, is_required: bool, is_free: bool = True
) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [{"type": "string", "enum": values}] if values else []
    if is_free:
        choices.append({"type": "string", "maxLength": 40})
    return {"name": name, "in": place, "required": is_required, "schema": {"anyOf": choices}}


def _content(route: str) -> dict[str, Any]:
    if model := BODIES.get(route):
        schema = model.model_json_schema(ref_template="#/x/{model}")
        return {"application/json": {"schema": _inlined(schema, schema.get("$defs", {}), 0)}}
    if route in JSON_BODIES:
        return {"application/json": {"schema": {"type": "object"}}}
    if route in TAR_BODIES:
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {}


def _inlined(schema: Any, parts: dict[str, Any], depth: int) -> Any:
    """The schema without references: what is deeper than six levels is any JSON."""
    if isinstance(schema, list):
        return [_inlined(each, parts, depth) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {} if depth > 6 else _inlined(parts[name], parts, depth + 1)
    kept = {key: value for key, value in schema.items() if key not in ("$defs", "default", "title")}
    return {key: _inlined(value, parts, depth) for key, value in kept.items()}
