"""The messages' JSON Schemas are checked in: a change of a message is a reviewed decision."""

from pathlib import Path

from labfleet_proto.schema import documents

SCHEMAS = Path(__file__).parents[2] / "proto" / "schema"


def test_schemas_on_disk_are_those_of_the_code() -> None:
    found = {path.name: path.read_text() for path in SCHEMAS.glob("*.json")}
    assert found == documents(), "run `make schema` and review the difference"


def test_every_message_refuses_unknown_fields() -> None:
    for name, text in documents().items():
        assert '"additionalProperties": false' in text, name
