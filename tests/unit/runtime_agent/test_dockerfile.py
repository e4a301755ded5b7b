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
        "ARG", "FROM", "RUN", "FROM", "COPY", "COPY", "FROM", "ADD",
    ]  # fmt: skip
    assert recipe.steps[2].text == "RUN a &&     b"
    assert read(TEXT, {"BASE": "debian"}).images[0] == "debian:1"


def test_a_target_is_where_it_ends() -> None:
    assert len(read(TEXT, {}, "one").steps) == 3
    assert len(read(TEXT, {}, "ONE").stages) == 1
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
        ("FROM a\nENV b", "failed to parse Dockerfile: ENV must have two arguments"),
        ("FROM a\nCOPY b", "COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nCOPY --wrong=b c d", "on line 2: unknown flag: --wrong"),
        ("FROM a AS 0a", 'invalid name for build stage: "0a"'),
        ("FROM a\nONBUILD FROM b", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nSHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nHEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK --interval=1x CMD b", 'time: unknown unit "x" in duration "1x"'),
        ("FROM a\nLABEL =b", "LABEL names can not be blank"),
        ("FROM a\nUSER", "USER requires exactly one argument"),
    ],
)
def test_what_is_wrong_is_said_as_docker_says_it(text: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(text, {})
    assert words in caught.value.message


def test_variables() -> None:
    assert expand("$A-${B:-x}-${A:+y}-${C}", {"A": "1"}) == "1-x-y-"


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("FROM $NO", 1, "base name ($NO) should not be blank"),
        ("ARG A\nFROM a AS x\nFROM b AS x", 3, "x stage name already used"),
        ("FROM a\nCOPY --from=0 b /", 2, "invalid from flag value 0: index out of bounds"),
        ("FROM a\nCOPY b c /d", 2, "the destination must be a directory and end with a /"),
        ("FROM a\nADD ../b /", 2, "ADD failed: forbidden path outside the build context: ../b ()"),
        ("FROM a\nEXPOSE x", 2, "Invalid containerPort: x"),
        ("FROM scratch", 1, "No image was generated. Is your Dockerfile empty?"),
    ],
)
def test_a_step_that_cannot_succeed_is_named(text: str, number: int, words: str) -> None:
    found = read(text, {}).failure
    assert found is not None
    assert found[0] == number
    assert words in found[1]


def test_a_label_alone_makes_an_image_of_nothing() -> None:
    assert read("FROM scratch", {}, labels={"a": "b"}).failure is None


def test_an_empty_line_inside_of_an_instruction_is_warned_of() -> None:
    warnings = read("FROM a\nRUN b \\\n\n  c\n", {}).warnings
    assert warnings[0] == "Empty continuation line found in:\n    RUN b   c"
    assert "errors in a future release" in warnings[1]


def test_a_stage_may_continue_another_or_copy_from_it() -> None:
    recipe = read("FROM a AS x\nFROM x\nCOPY --from=x b /\n", {})
    assert recipe.images == ("a",)
    assert [stage.parent for stage in recipe.stages] == [None, 0]
    assert recipe.failure is None
