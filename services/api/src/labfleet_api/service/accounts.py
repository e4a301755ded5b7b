"""`docker login`: a token is the password, at the api and at the fleet's registry alike."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from labfleet_api.core.access import UnauthorizedError
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, read_body


class AuthBody(BaseModel):
    """What `docker login` sends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    username: str = ""
    password: str = ""
    identitytoken: str = ""
    serveraddress: str = ""


def router(fleet: Fleet) -> APIRouter:
    """The route of accounts."""
    routes = APIRouter()

    @routes.post("/auth")
    async def login(request: Request) -> Response:
        body = await read_body(request, AuthBody)
        own = fleet.settings.registry
        if not _is_own(body.serveraddress, own):
            raise UnauthorizedError(
                f"login to {body.serveraddress or 'the default registry'}: this fleet's registry is {own}"
            )
        secret = body.password or body.identitytoken
        if fleet.memory.credentials.of_token(secret) is None:
            raise UnauthorizedError(
                f"login attempt to http://{own}/v2/ failed: unauthorized: "
                "the password must be a token of this fleet"
            )
        return answer({"Status": "Login Succeeded", "IdentityToken": ""})

    return routes


def _is_own(address: str, registry: str) -> bool:
    """Whether a server address means the fleet's registry, under whichever name of its machine."""
    plain = address.partition("://")[2] or address
    host = plain.partition("/")[0]
    return host == registry or (
        ":" in host and host.rpartition(":")[2] == registry.rpartition(":")[2]
    )
