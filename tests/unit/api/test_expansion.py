"""Variables in the instructions of `--change`."""

import pytest

from labfleet_api.core.changes import apply
from labfleet_api.core.expansion import expanded

_VALUES = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/x:$A", "/x:one"),
        ("${A}s", "ones"),
        ("'$A' \"$A\"", "'$A' \"one\""),
        (r"\$A", r"\$A"),
        ("${NONE}", ""),
        ("${NONE:-two} ${EMPTY:-two} ${EMPTY-two}", "two two "),
        ("${A:+then}${NONE:+then}", "then"),
        ("${NONE:-$A}", "one"),
        ("100$", "100$"),
        ("it's $A", "it's $A"),
    ],
)
def test_a_variable_has_its_value(text: str, result: str) -> None:
    assert expanded(text, _VALUES) == result


def test_an_instruction_sees_the_environment_before_it() -> None:
    made = apply({"Env": ["PATH=/bin"]}, ["ENV PATH=/usr/bin:$PATH HOME=$PATH", "WORKDIR $HOME"])
    assert made["Env"] == ["PATH=/usr/bin:/bin", "HOME=/bin"]
    assert made["WorkingDir"] == "/bin"
    assert apply({"Env": ["A=b"]}, ["CMD echo $A"])["Cmd"][-1] == "echo $A"
