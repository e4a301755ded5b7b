"""References: the distribution project's grammar, and one name for each repository."""

import pytest

from labfleet_image_store.core.references import (
    LONGEST_NAME,
    canonical,
    id_prefix,
    is_digest,
    is_repository,
    is_tag,
    parse,
    split_registry,
)
from labfleet_proto.errors import InvalidRequestError

DIGEST = "sha256:" + "a" * 64
OWN = frozenset({"127.0.0.1:7402", "registry.lab"})


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1.36", "busybox:1.36"),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1.36@{DIGEST}", f"busybox@{DIGEST}"),
        ("library/busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/busybox", "busybox:latest"),
        ("index.docker.io/lab/web", "lab/web:latest"),
        ("127.0.0.1:7402/lab/web:v1", "lab/web:v1"),
        ("127.0.0.1:7402/busybox", "busybox:latest"),
        ("registry.lab/web", "web:latest"),
        ("lab/deep/web", "lab/deep/web:latest"),
        ("other.lab:5000/web", "other.lab:5000/web:latest"),
        ("other.lab/deep/web:1", "other.lab/deep/web:1"),
        ("library/deep/web", "library/deep/web:latest"),
        ("a__b--c.d/e_f", "a__b--c.d/e_f:latest"),
        (f"web:{'t' * 128}", f"web:{'t' * 128}"),
    ],
)
def test_a_reference_is_read(text: str, familiar: str) -> None:
    assert parse(text, OWN).familiar == familiar


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid reference format"),
        (":1", "invalid reference format"),
        ("Busybox", "repository name must be lowercase"),
        ("lab/", "invalid reference format"),
        ("/web", "invalid reference format"),
        ("lab//web", "invalid reference format"),
        ("web-", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("../web", "invalid reference format"),
        ("web:", "the tag is malformed"),
        ("web:-x", "the tag is malformed"),
        (f"web:{'t' * 129}", "the tag is malformed"),
        ("web@", "the digest is malformed"),
        ("web@sha256:ab", "the digest is malformed"),
        (f"web@{DIGEST.upper()}", "the digest is malformed"),
        (f"@{DIGEST}", "invalid reference format"),
        ("web\n", "invalid reference format"),
        ("other.lab:5000/Web", "repository name must be lowercase"),
        ("other.lab:port/web", "invalid reference format"),
        ("other.lab:5000/", "invalid reference format"),
    ],
)
def test_what_is_no_reference_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(text, OWN)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a", True),
        ("a" * LONGEST_NAME, True),
        ("a" * (LONGEST_NAME + 1), False),
        ("lab/web", True),
        ("lab/../web", False),
        ("lab/.web", False),
        ("", False),
        ("web\n", False),
    ],
)
def test_the_grammar_of_repositories(name: str, *, valid: bool) -> None:
    assert is_repository(name) is valid


@pytest.mark.parametrize(
    ("tag", "valid"),
    [("latest", True), ("_1.2-x", True), ("", False), (".1", False), ("a/b", False), ("ü", False)],
)
def test_the_grammar_of_tags(tag: str, *, valid: bool) -> None:
    assert is_tag(tag) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (DIGEST, True),
        (DIGEST[:-1], False),
        (DIGEST + "a", False),
        (DIGEST + "\n", False),
        ("sha256:" + "A" * 64, False),
        ("sha512:" + "a" * 128, False),
        ("/etc/passwd", False),
    ],
)
def test_the_grammar_of_digests(text: str, *, valid: bool) -> None:
    assert is_digest(text) is valid


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("library/web", "web"),
        ("web", "web"),
        ("lab/web", "lab/web"),
        ("library/a/b", "library/a/b"),
        ("library", "library"),
    ],
)
def test_a_repository_has_one_name(name: str, one: str) -> None:
    assert canonical(name) == one


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("abc", "abc"),
        (DIGEST, "a" * 64),
        ("sha256:ab", "ab"),
        ("web", None),
        ("ABC", None),
        ("", None),
        ("a" * 65, None),
    ],
)
def test_what_can_be_an_image_id(text: str, digits: str | None) -> None:
    assert id_prefix(text) == digits


@pytest.mark.parametrize(
    ("name", "registry", "path"),
    [
        ("busybox", "docker.io", "busybox"),
        ("lab/web", "docker.io", "lab/web"),
        ("quay.io/lab/web", "quay.io", "lab/web"),
        ("lab:5000/web", "lab:5000", "web"),
        ("localhost/web", "localhost", "web"),
    ],
)
def test_a_name_says_its_registry(name: str, registry: str, path: str) -> None:
    assert split_registry(name) == (registry, path)
