"""`--change`: instructions alter a config as docker's do, or are refused in its words."""

import pytest

from labfleet_api.core.changes import apply
from labfleet_proto.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('CMD ["a", "b c"]', "Cmd", ["a", "b c"]),
        ("CMD a b", "Cmd", ["/bin/sh", "-c", "a b"]),
        ('entrypoint ["x"]', "Entrypoint", ["x"]),
        ("ENV A=1 B='x y'", "Env", ["A=1", "B=x y"]),
        ("ENV A b c", "Env", ["A=b c"]),
        ("EXPOSE 80 1-2/udp", "ExposedPorts", {"80/tcp": {}, "1/udp": {}, "2/udp": {}}),
        ('VOLUME ["/a", "/b"]', "Volumes", {"/a": {}, "/b": {}}),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ("LABEL a=b", "Labels", {"a": "b"}),
        ("USER nobody:nogroup", "User", "nobody:nogroup"),
        ("WORKDIR ../b/./c", "WorkingDir", "/b/c"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("ONBUILD RUN x", "OnBuild", ["RUN x"]),
        ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
            "Healthcheck",
            {"Interval": 90_000_000_000, "Retries": 2, "Test": ["CMD-SHELL", "curl x"]},
        ),
    ],
)
def test_an_instruction_sets_its_field(line: str, key: str, value: object) -> None:
    assert apply({"WorkingDir": "/a"} if key == "WorkingDir" else {}, [line])[key] == value


def test_later_values_replace_earlier_ones_and_the_given_config_stays() -> None:
    config = {"Env": ["A=1", "B=2"], "Labels": {"x": "1"}}
    changed = apply(config, ["ENV A=3", "LABEL x=2 y=3"])
    assert changed["Env"] == ["A=3", "B=2"]
    assert changed["Labels"] == {"x": "2", "y": "3"}
    assert config == {"Env": ["A=1", "B=2"], "Labels": {"x": "1"}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("ENV A=1 B", "can't find = in"),
        ("EXPOSE 99999", "invalid containerPort"),
        ("CMD", "requires at least one argument"),
        ("HEALTHCHECK --interval=1x CMD a", "invalid duration"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
    ],
)
def test_nonsense_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words.replace("(", r"\(")):
        apply({}, [line])
