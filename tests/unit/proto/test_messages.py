"""Messages: frozen, closed, and the same after a trip as JSON."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.unit.proto.records import (
    address_record,
    container_id,
    container_record,
    container_spec,
    limits,
    network_record,
    observation,
)

from labfleet_proto import schema
from labfleet_proto.containers import ContainerRecord, Limits, State
from labfleet_proto.ids import ExecId, HostId, TenantId
from labfleet_proto.message import Message
from labfleet_proto.networks import NetworkRecord
from labfleet_proto.streams import (
    AttachExec,
    ReadLogs,
    Ticket,
)

MESSAGES = schema.messages()
SAMPLES: list[Message] = [
    container_record(),
    observation(State.RUNNING, steps_s={"start": 0.25}),
    network_record(),
    address_record("10.100.1.2"),
    Ticket(
        host=HostId("h1"),
        tenant=TenantId("ann"),
        request=ReadLogs(container=container_record().id, tail=3),
        expires_at_ns=1,
        nonce="n",
    ),
]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_class_is_frozen_and_closed(name: str) -> None:
    config = MESSAGES[name].model_config
    assert (config.get("frozen"), config.get("extra")) == (True, "forbid")


def test_a_field_of_a_message_cannot_be_set() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        network_record().name = "other"  # type: ignore[misc]


def test_an_unknown_field_is_refused_by_name() -> None:
    document = network_record().model_dump() | {"colour": "red"}
    with pytest.raises(ValidationError, match="colour"):
        NetworkRecord.model_validate(document)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_is_the_same_after_a_trip_as_json(message: Message) -> None:
    assert type(message).model_validate_json(message.model_dump_json()) == message


def test_a_stream_request_is_told_by_its_op() -> None:
    request = AttachExec(container=container_id(1), exec=ExecId("e"), is_tty=False)
    document = {**SAMPLES[-1].model_dump(), "request": request.model_dump()}
    assert Ticket.model_validate(document).request == request


def test_a_record_without_later_fields_still_reads() -> None:
    document = container_record().model_dump()
    for name in ("goal", "generation", "attempt", "stop_signal", "remove_volumes"):
        del document[name]
    assert ContainerRecord.model_validate(document) == container_record()


@pytest.mark.parametrize("limit", ["memory_bytes", "cpu_millis", "pids"])
def test_no_limit_can_be_left_out(limit: str) -> None:
    document = limits().model_dump()
    del document[limit]
    with pytest.raises(ValidationError, match=limit):
        Limits.model_validate(document)


def test_a_container_takes_its_limits_and_one_slot() -> None:
    spec = container_spec(limits=limits(memory_bytes=10, cpu_millis=20, pids=30))
    assert spec.resources().model_dump() == {
        "memory_bytes": 10,
        "cpu_millis": 20,
        "pids": 30,
        "containers": 1,
    }


def test_the_command_follows_the_entrypoint() -> None:
    assert container_spec(entrypoint=("tini",), command=("sh", "-c")).argv == ("tini", "sh", "-c")


def test_the_schema_names_each_message_by_its_module() -> None:
    assert MESSAGES["containers.ContainerRecord"] is ContainerRecord


def test_the_base_of_all_messages_has_no_schema() -> None:
    assert "message.Message" not in MESSAGES


def test_a_schema_directory_holds_exactly_the_messages(tmp_path: Path) -> None:
    (tmp_path / "gone.Old.json").write_text("{}")
    schema.write(tmp_path)
    assert {path.name.removesuffix(".json") for path in tmp_path.iterdir()} == set(MESSAGES)


def test_a_schema_file_is_json_with_the_class_as_title(tmp_path: Path) -> None:
    schema.write(tmp_path)
    document = json.loads((tmp_path / "networks.NetworkRecord.json").read_text())
    assert document["title"] == "NetworkRecord"
