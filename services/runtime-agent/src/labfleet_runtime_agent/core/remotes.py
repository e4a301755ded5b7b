"""Where `docker build` is told to fetch its context from."""

import re
from dataclasses import dataclass

from labfleet_proto.errors import ForbiddenError, InvalidRequestError

_GIT_OVER_HTTP = re.compile(r"https?://[^#]*\.git(?:#.*)?", re.DOTALL)
_SSH = re.compile(r"git@|ssh://")


@dataclass(frozen=True)
class GitRemote:
    """A repository, a reference in it (empty: its HEAD), and a directory of it."""

    url: str
    reference: str = ""
    folder: str = ""


@dataclass(frozen=True)
class HttpRemote:
    """A Dockerfile, or an archive with one."""

    url: str


def remote_of(text: str) -> GitRemote | HttpRemote:
    """Read `remote`, by docker's rules. Raises InvalidRequestError, ForbiddenError."""
    if any(ord(sign) <= ord(" ") for sign in text) or text.startswith("-"):
        raise InvalidRequestError(f"remoteURL ({text!r}) could not be recognized as URL")
    if _SSH.match(text):
        raise ForbiddenError(f"remote: {text}: hosts have no keys for ssh; use https")
    if _GIT_OVER_HTTP.fullmatch(text) or text.startswith(("git://", "github.com/")):
        url, _, fragment = text.partition("#")
        reference, _, folder = fragment.partition(":")
        if reference.startswith("-"):
            raise InvalidRequestError(f"invalid refspec: {reference}")
        if url.startswith("github.com/"):
            url = f"https://{url}"
        return GitRemote(url, reference, folder)
    if text.startswith(("http://", "https://")):
        return HttpRemote(text)
    raise InvalidRequestError(f"remoteURL ({text}) could not be recognized as URL")


def is_dockerfile(head: bytes) -> bool:
    """Whether what a server sent begins as text: then it is a Dockerfile, else an archive."""
    if not head:
        return True
    return all(byte >= ord(" ") or byte in b"\t\n\r\f\x1b" for byte in head[:512])
