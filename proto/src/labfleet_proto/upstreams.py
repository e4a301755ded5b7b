"""Upstreams: registries of others, from which the image store fetches what the fleet has not.

Docker, and the command line `labfleet mirror`, call them mirrors.
"""

import re

from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.images import ImageDetail
from labfleet_proto.jobs import JobKind
from labfleet_proto.message import Message, Nothing

HUB = "docker.io"
"""The registry that names without one mean."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DOMAIN = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?")
DEFAULT_EXPIRY_S = 300


class UpstreamRecord(Message):
    """Value of bucket `upstreams`, key `<name>`; written by `labfleet mirror`."""

    name: str
    url: str
    """`http` or `https`, host, maybe a port and a path; without user and password."""
    registry: str = HUB
    """Whose names it serves; names that begin with the host of `url` are served, too."""
    position: int
    """Lower ones are asked first."""
    username: str = ""
    password: str = ""
    """Never shown."""
    ca_pem: str = ""
    """Certificates to trust instead of the machine's."""
    expiry_s: int = DEFAULT_EXPIRY_S
    """For so long a tag is not asked for again."""
    added_at_ns: int = 0


class RegistryLogin(Message):
    """What a client sends in `X-Registry-Auth`; never stored."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    """An OAuth2 refresh token."""
    registry_token: str = ""
    """A Bearer token, as it is."""

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.username or self.identity_token or self.registry_token)


class FetchImage(Message):
    """Find an image, and fetch it from an upstream if it is not there. Safe to repeat."""

    reference: str


class DescribeRemote(Message):
    """What a registry says of a reference, without fetching its layers."""

    reference: str
    login: RegistryLogin = RegistryLogin()


class RemotePlatform(Message):
    """What machine an image is for."""

    architecture: str
    os: str
    variant: str = ""


class RemoteDescription(Message):
    """The answer of `docker manifest` and of `GET /distribution/{name}/json`."""

    media_type: str
    digest: str
    size_bytes: int
    platforms: tuple[RemotePlatform, ...]


class UpstreamState(Message):
    """How an upstream does."""

    name: str
    is_up: bool
    word: str = ""
    """Why not, as it was last heard."""
    fetched_bytes: int = 0
    """Since the image store began."""


class UpstreamStates(Message):
    """All upstreams."""

    upstreams: tuple[UpstreamState, ...]


FETCH_IMAGE = JobKind("fetch_image", "image-store", FetchImage, ImageDetail, timeout_s=1800.0)
"""Raises NotFoundError, ForbiddenError, UnavailableError."""
DESCRIBE_REMOTE = JobKind(
    "describe_remote", "image-store", DescribeRemote, RemoteDescription, timeout_s=60.0
)
"""Raises as `FETCH_IMAGE`."""
UPSTREAM_STATES = JobKind("upstream_states", "image-store", Nothing, UpstreamStates)


def checked_name(name: str) -> str:
    """Return the name of an upstream. Raises InvalidRequestError."""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError(f"mirror {name!r}: a name is [a-z0-9-], at most 63 characters")
    return name


def checked_domain(text: str) -> str:
    """Return the domain of a registry, as names begin with it. Raises InvalidRequestError."""
    if _DOMAIN.fullmatch(text) is None:
        raise InvalidRequestError(
            f"{text!r} is no registry's domain, such as docker.io or lab:5000"
        )
    return text
