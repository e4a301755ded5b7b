"""Log drivers, their options, and details before lines."""

import pytest
from tests.unit.proto.records import container_record

from labfleet_api.core.host_config import LogConfigBody
from labfleet_api.core.log_config import details, settings
from labfleet_proto.containers import LogSettings
from labfleet_proto.errors import InvalidRequestError, NotImplementedYetError

MIB = 1 << 20


def of(kind: str, **options: str) -> LogSettings:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return settings(LogConfigBody(Type=kind, Config=named))


def test_a_log_is_bounded_also_where_nothing_is_said() -> None:
    assert settings(None) == settings(LogConfigBody()) == LogSettings()
    assert LogSettings().file_bytes * LogSettings().files == 64 * MIB


@pytest.mark.parametrize(
    ("kind", "options", "file_bytes", "files"),
    [
        ("json-file", {"max_size": "10m"}, 10 * MIB, 1),
        ("", {"max_size": "10k", "max_file": "3"}, 10 * 1024, 3),
        ("local", {}, 20 * MIB, 5),
        ("local", {"max_size": "1MB", "max_file": "2", "compress": "true"}, MIB, 2),
        ("json-file", {"max_size": "512"}, 512, 1),
        ("json-file", {"max_size": "10g", "max_file": "2"}, 512 * MIB, 2),
        ("json-file", {"labels": "a", "env": "B", "tag": "x"}, 32 * MIB, 2),
    ],
)
def test_options(kind: str, options: dict[str, str], file_bytes: int, files: int) -> None:
    found = of(kind, **options)
    assert (found.file_bytes, found.files) == (file_bytes, files)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("json-file", {"invented": "1"}, "unknown log opt 'invented' for json-file log driver"),
        ("json-file", {"max_file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max_file": "two"}, "max-file"),
        ("local", {"max_size": "-1"}, "max-size"),
        ("local", {"max_size": "ten"}, "max-size"),
        ("json-file", {"compress": "true", "max_size": "1m"}, "compress cannot be true"),
        ("local", {"compress": "maybe"}, "compress"),
        ("asdf", {}, "logger: no log driver named 'asdf' is registered"),
    ],
)
def test_bad_options_are_named(kind: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        of(kind, **options)


def test_a_driver_of_another_place_is_not_there_yet() -> None:
    with pytest.raises(NotImplementedYetError, match=r"LogConfig\.Type syslog"):
        of("syslog")


def test_no_log_has_any_options() -> None:
    assert of("none", whatever="x").driver == "none"


def test_details_are_sorted_and_escaped() -> None:
    one = container_record()
    spec = one.spec.model_copy(
        update={
            "labels": {"team": "a b", "other": "x", "tier": "1"},
            "env": ("STAGE=t=1", "HIDDEN=y"),
            "log": of(
                "json-file",
                labels="team,none",
                labels_regex="^ti",
                env="STAGE",
                tag="{{.Name}}/{{.ID}}",
            ),
        }
    )
    one = one.model_copy(update={"spec": spec})
    assert details(one) == f"STAGE=t%3D1,tag={one.name}%2F{one.id[:12]},team=a+b,tier=1"
