"""Dockerfiles as far as they are read before a build: steps, images, targets, docker's words."""

import pytest

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.dockerfile import expand, read

TEXT = """# syntax=x
ARG BASE=busybox
FROM --platform=linux/amd64 ${BASE}:1 AS one
# a comment
RUN a && \\
  # in between
    b
FROM one
COPY --from=tools:2 /x /y
copy --from=0 /a /b
FROM scratch AS last
ADD x /
"""


def test_steps_and_images() -> None:
    recipe = read(TEXT, {})
    assert recipe.images == ("busybox:1", "tools:2")
    assert [step.name for step in recipe.steps] == [
        "FROM", "RUN", "FROM", "COPY", "COPY", "FROM", "ADD",
    ]  # fmt: skip
    assert recipe.steps[1].text == "RUN a &&     b"
    assert read(TEXT, {"BASE": "debian"}).images[0] == "debian:1"


def test_a_target_is_where_it_ends() -> None:
    assert len(read(TEXT, {}, "one").steps) == 2
    assert len(read(TEXT, {}, "1").steps) == 5
    assert read(TEXT, {}, "LAST").steps[-1].name == "ADD"
    with pytest.raises(InvalidRequestError, match="failed to reach build target nosuch"):
        read(TEXT, {}, "nosuch")


def test_images_are_named_by_their_ids() -> None:
    text = read(TEXT, {}).rewritten({"busybox:1": "aa", "tools:2": "bb"})
    assert "FROM aa AS one\n" in text
    assert "FROM one\n" in text
    assert "COPY --from=bb /x /y\n" in text
    assert text.startswith("ARG BASE=busybox\n")
    assert read("# escape=`\nFROM a\nRUN x `\n y\n", {}).rewritten({}) == (
        "# escape=`\nFROM a\nRUN x  y\n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file with no instructions"),
        ("FROM a\nRUNN b", "on line 2: unknown instruction: RUNN"),
        ("FROM a\nRUN", "on line 2: RUN requires at least one argument"),
        ("RUN a", "no build stage in current context"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM $NO", "should not be blank"),
    ],
)
def test_what_is_wrong_is_said_as_docker_says_it(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(text, {})
    assert words in caught.value.message


def test_variables() -> None:
    assert expand("$A-${B:-x}-${A:+y}-${C}", {"A": "1"}) == "1-x-y-"
