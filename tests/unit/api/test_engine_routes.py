"""What is said of a request that no route serves."""

import pytest

from labfleet_api.core.engine_routes import ENGINE_ROUTES, refusal


def test_there_are_as_many_routes_as_in_dockers_description() -> None:
    assert len(set(ENGINE_ROUTES)) == len(ENGINE_ROUTES) == 107


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/build", 501, "POST /build is not there yet"),
        ("POST", "/containers/web/pause", 501, "POST /containers/{id}/pause is not there yet"),
        ("GET", "/images/get", 501, "GET /images/get is not there yet"),
        ("GET", "/images/lab/web/get", 501, "GET /images/{name}/get is not there yet"),
        ("GET", "/distribution/lab/web:1/json", 501, "/distribution/{name}/json"),
        ("GET", "/swarm", 501, "no swarm mode"),
        ("POST", "/swarm/leave", 503, "not part of a swarm"),
        ("POST", "/services/create", 501, "no swarm mode"),
        ("GET", "/services/web/logs", 501, "no swarm mode"),
        ("DELETE", "/nodes/host1", 501, "no swarm mode"),
        ("PATCH", "/containers/json", 405, "method PATCH is not allowed for /containers/json"),
        ("POST", "/version", 405, "POST"),
        ("GET", "/containers/web/pause", 405, "GET"),
        ("DELETE", "/swarm", 405, "DELETE"),
        ("GET", "/nosuch", 404, "page not found: /nosuch"),
        ("GET", "/", 404, "page not found"),
        ("GET", "/containers/web/nosuch", 404, "page not found"),
        ("POST", "/containers/a/b/pause", 404, "page not found"),
        ("POST", "/build/", 404, "page not found"),
    ],
)
def test_a_refusal_names_the_route(method: str, path: str, status: int, words: str) -> None:
    found, sentence = refusal(method, path)
    assert found == status
    assert words in sentence
