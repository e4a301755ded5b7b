"""Where a context may come from."""

import pytest

from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_runtime_agent.core.remotes import GitRemote, HttpRemote, is_dockerfile, remote_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://a/b.tar", HttpRemote("http://a/b.tar")),
        ("https://a/b.git#v1:sub/dir", GitRemote("https://a/b.git", "v1", "sub/dir")),
        ("http://a/b.git", GitRemote("http://a/b.git")),
        ("git://a/b#:dir", GitRemote("git://a/b", "", "dir")),
        ("github.com/a/b", GitRemote("https://github.com/a/b")),
    ],
)
def test_remotes(text: str, found: GitRemote | HttpRemote) -> None:
    assert remote_of(text) == found


@pytest.mark.parametrize(
    "text", ["", "x", "-x", "file:///etc", "http://a b", "ext::sh", "git://a#--upload-pack=x"]
)
def test_what_is_no_remote(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        remote_of(text)


def test_ssh_has_no_keys() -> None:
    with pytest.raises(ForbiddenError, match="no keys"):
        remote_of("git@github.com:a/b.git")


def test_text_is_a_dockerfile_and_anything_else_an_archive() -> None:
    assert is_dockerfile(b"FROM a\n\tx\xc3\xa9")
    assert not is_dockerfile(b"\x1f\x8b\x08")
    assert not is_dockerfile(b"Dockerfile\x00\x00")
