"""A small client of our own Docker API, for the first container and the last cleanup."""

import struct
from pathlib import Path
from typing import Any, Self

import httpx

from labfleet_proto.ids import TenantId

_FRAME = struct.Struct(">BxxxI")


class DockerApi:
    """Blocking calls over the local socket. Raises httpx.HTTPError."""

    def __init__(self, socket: Path, tenant: TenantId | None = None) -> None:
        """Open; with `tenant` an operator acts for it."""
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://docker",
            timeout=120,
            headers={"Labfleet-Tenant": tenant} if tenant else {},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> Any:
        """Decode the JSON answer."""
        answer = self._client.get(path, params=query)
        _check(answer)
        return answer.json()

    def post(self, path: str, body: object = None, **query: str) -> httpx.Response:
        """Send JSON."""
        answer = self._client.post(path, json=body, params=query)
        _check(answer)
        return answer

    def delete(self, path: str, **query: str) -> None:
        """Delete; what is not there is deleted."""
        answer = self._client.delete(path, params=query)
        if answer.status_code != 404:
            _check(answer)

    def run(self, image: str, command: list[str]) -> str:
        """Run a container to its end, remove it, and return what it printed."""
        created = self.post("/containers/create", {"Image": image, "Cmd": command}).json()
        path = f"/containers/{created['Id']}"
        try:
            self.post(f"{path}/start")
            self.post(f"{path}/wait")
            raw = self._client.get(f"{path}/logs", params={"stdout": "1", "stderr": "1"}).content
        finally:
            self.delete(path, force="1")
        return _unframed(raw).decode(errors="replace")

    def remove_everything(self) -> int:
        """Remove all containers and volumes of the caller; return the containers' number."""
        rows = self.get("/containers/json", all="1")
        for row in rows:
            self.delete(f"/containers/{row['Id']}", force="1", v="1")
        for volume in self.get("/volumes")["Volumes"]:
            self.delete(f"/volumes/{volume['Name']}")
        return len(rows)


def _unframed(raw: bytes) -> bytes:
    found = b""
    while len(raw) >= _FRAME.size:
        _, length = _FRAME.unpack_from(raw)
        found += raw[_FRAME.size : _FRAME.size + length]
        raw = raw[_FRAME.size + length :]
    return found


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        try:
            message = answer.json()["message"]
        except (ValueError, KeyError):
            message = answer.text
        raise httpx.HTTPError(message)
