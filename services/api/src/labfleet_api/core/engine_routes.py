"""Every method and path of the Docker Engine API 1.50 (moby, `api/swagger.yaml`)."""

import re

ENGINE_ROUTES: tuple[tuple[str, str], ...] = tuple(
    (method, path)
    for line in """
GET /containers/json
POST /containers/create
GET /containers/{id}/json
GET /containers/{id}/top
GET /containers/{id}/logs
GET /containers/{id}/changes
GET /containers/{id}/export
GET /containers/{id}/stats
POST /containers/{id}/resize
POST /containers/{id}/start
POST /containers/{id}/stop
POST /containers/{id}/restart
POST /containers/{id}/kill
POST /containers/{id}/update
POST /containers/{id}/rename
POST /containers/{id}/pause
POST /containers/{id}/unpause
POST /containers/{id}/attach
GET /containers/{id}/attach/ws
POST /containers/{id}/wait
DELETE /containers/{id}
HEAD /containers/{id}/archive
GET /containers/{id}/archive
PUT /containers/{id}/archive
POST /containers/prune
POST /containers/{id}/exec
POST /exec/{id}/start
POST /exec/{id}/resize
GET /exec/{id}/json
GET /images/json
POST /build
POST /build/prune
POST /images/create
GET /images/{name}/json
GET /images/{name}/history
POST /images/{name}/push
POST /images/{name}/tag
DELETE /images/{name}
GET /images/search
POST /images/prune
POST /commit
GET /images/{name}/get
GET /images/get
POST /images/load
GET /distribution/{name}/json
POST /auth
GET /info
GET /version
GET /_ping
HEAD /_ping
GET /events
GET /system/df
GET /volumes
POST /volumes/create
GET /volumes/{name}
PUT /volumes/{name}
DELETE /volumes/{name}
POST /volumes/prune
GET /networks
GET /networks/{id}
DELETE /networks/{id}
POST /networks/create
POST /networks/{id}/connect
POST /networks/{id}/disconnect
POST /networks/prune
GET /plugins
GET /plugins/privileges
POST /plugins/pull
GET /plugins/{name}/json
DELETE /plugins/{name}
POST /plugins/{name}/enable
POST /plugins/{name}/disable
POST /plugins/{name}/upgrade
POST /plugins/create
POST /plugins/{name}/push
POST /plugins/{name}/set
GET /nodes
GET /nodes/{id}
DELETE /nodes/{id}
POST /nodes/{id}/update
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/update
GET /swarm/unlockkey
POST /swarm/unlock
GET /services
POST /services/create
GET /services/{id}
DELETE /services/{id}
POST /services/{id}/update
GET /services/{id}/logs
GET /tasks
GET /tasks/{id}
GET /tasks/{id}/logs
GET /secrets
POST /secrets/create
GET /secrets/{id}
DELETE /secrets/{id}
POST /secrets/{id}/update
GET /configs
POST /configs/create
GET /configs/{id}
DELETE /configs/{id}
POST /configs/{id}/update
POST /session
""".split("\n")
    if line
    for method, path in [line.split()]
)

_NO_SWARM = "a fleet has no swarm mode"
_INSTEAD = {
    "/swarm": f"{_NO_SWARM}: hosts join it by `labfleet up`, and containers are spread over them",
    "/services": f"{_NO_SWARM}: start containers, or a project with docker compose",
    "/tasks": f"{_NO_SWARM}: `docker ps` lists the containers of all hosts",
    "/secrets": f"{_NO_SWARM}: give a container its secret by a volume or a variable",
    "/configs": f"{_NO_SWARM}: give a container its configuration by a volume, or in the image",
    "/nodes": f"{_NO_SWARM}: a host leaves the fleet when its services end for good",
    "/plugins": "a plugin is a program with power over a host, so a fleet takes none",
    "/session": "it is BuildKit's own channel: clients use the classic builder (`POST /build`)",
}


def pattern_of(path: str) -> re.Pattern[str]:
    """What requests of a route look like; an image's name may have slashes."""
    return re.compile(re.sub(r"\{\w+\}", ".+" if "{name}" in path else "[^/]+", path))


_PATTERNS = [(method, path, pattern_of(path)) for method, path in ENGINE_ROUTES]


def refusal(method: str, path: str) -> tuple[int, str]:
    """Status and sentence for a request that no route of ours serves."""
    methods = set()
    for known, template, pattern in _PATTERNS:
        if pattern.fullmatch(path):
            methods.add(known)
            if (known, template) == (method, "/swarm/leave"):
                return 503, "This node is not part of a swarm"  # as dockerd: clients go on then
            instead = _INSTEAD.get("/" + template.split("/")[1])
            if known == method and instead is not None:
                return 501, f"labfleet: {method} {template} is not there: {instead}"
            if known == method:
                return 501, f"labfleet: {method} {template} is not there yet"
    if methods:
        return 405, f"method {method} is not allowed for {path}"
    return 404, f"page not found: {path}"
