"""Whatever a client sends is taken or refused in words: bodies and filters of all kinds, by chance but repeatable."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from tests.unit.proto.records import container_id

from labfleet_api.core import create
from labfleet_api.core.attachments import wanted_networks
from labfleet_api.core.bodies import CreateBody, ExecBody
from labfleet_api.core.filters import parse_filters
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_api.core.place_bodies import (
    EndpointConfig,
    IpamConfig,
    NetworkBody,
    NetworkingConfigBody,
    VolumeBody,
)
from labfleet_proto.errors import LabfleetError

FEW = settings(derandomize=True, deadline=None, max_examples=300)

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "host", "none", "default", "bridge", "container:x", "private", "80/tcp", "0/udp", "1-2", "ALL", "SYS_ADMIN",
            "CAP_NET_RAW", "/etc:/etc", "a:/b:ro", "a:/b:z,rshared", "/", "..", "size=1g", "unconfined",
            "seccomp=unconfined", "no-new-privileges:true", "kernel.sysrq", "net.ipv4.ip_forward", "1.2.3.4", "::1",
            "name:1.2.3.4", "x:host-gateway", "always", "SIGKILL", "99", "nofile", "bind", "volume", "tmpfs", "image",
            "99999999999999999999", "-1", "\0", "\ud7ff", "A=b", "=x", "json-file", "on-failure:3", "0-3", "0,",
        ]
    ),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 3), st.sampled_from([1 << 20, 1 << 31, 1 << 62, 1 << 63, 1 << 70, -(1 << 63)])
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(width=16), TEXTS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARTS = (HostConfigBody, NetworkingConfigBody, EndpointConfig, IpamConfig)
"""Models that are filled in as such, so that the draw comes past the first level."""


def bodies(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of a model's fields, of the right kind or of any."""
    names = sorted(model.model_fields)

    def value(name: str) -> st.SearchStrategy[Any]:
        hint = str(model.model_fields[name].annotation)
        for part in PARTS:
            if f".{part.__name__} | None" in hint and "dict[" not in hint and "list[" not in hint:
                return bodies(part)
        likely: st.SearchStrategy[Any] = JSON
        if "list[str]" in hint:
            likely = st.lists(TEXTS, max_size=3)
        elif "dict[str, str]" in hint:
            likely = st.dictionaries(TEXTS, TEXTS, max_size=3)
        elif "int" in hint:
            likely = NUMBERS
        elif "bool" in hint:
            likely = st.booleans()
        elif "str" in hint:
            likely = TEXTS
        return likely | likely | JSON

    return st.lists(st.sampled_from(names), max_size=5, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: value(name) for name in chosen})
    )


@FEW
@given(bodies(CreateBody))
def test_create_bodies(fields: dict[str, Any]) -> None:
    """A body is refused in words, or gives a specification that survives the bus, within the limits of a tenant."""
    text = json.dumps({"Image": "busybox", "Cmd": ["sh"], **fields})
    try:
        body = CreateBody.model_validate_json(text)
    except ValidationError:
        return
    try:
        wanted_networks(body)
        spec = create.specification(
            container_id(1), body, ImageDefaults(), (), new_volume=lambda: "anonymous"
        )
    except LabfleetError:
        return
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    limits = spec.limits
    assert limits.memory_bytes > 0
    assert 0 < limits.pids <= 1 << 22
    assert limits.cpu_millis > 0
    assert not {"SYS_ADMIN", "ALL", "NET_ADMIN", "SYS_MODULE"} & set(spec.cap_add)
    assert spec.network_mode != "host"
    assert not spec.network_mode.startswith("container:")


@FEW
@given(st.sampled_from([ExecBody, NetworkBody, VolumeBody]).flatmap(
    lambda model: st.tuples(st.just(model), bodies(model))
))  # fmt: skip
def test_other_bodies(drawn: tuple[type[BaseModel], dict[str, Any]]) -> None:
    model, fields = drawn
    try:
        body = model.model_validate_json(json.dumps(fields))
        body.refuse_unserved()  # type: ignore[attr-defined]
    except (ValidationError, LabfleetError):
        return


@FEW
@given(
    st.one_of(
        TEXTS,
        JSON.map(json.dumps),
        st.dictionaries(st.sampled_from(["a", "b"]), JSON).map(json.dumps),
    )
)
def test_filters(text: str) -> None:
    try:
        found = parse_filters(text, frozenset({"a", "b"}))
    except LabfleetError:
        return
    assert set(found) <= {"a", "b"}
    assert all(isinstance(each, str) for values in found.values() for each in values)
