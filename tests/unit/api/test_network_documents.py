"""Networks in docker's shape, and the filters of their list."""

from typing import Any

import pytest
from tests.unit.proto.records import network_record

from labfleet_api.core.network_documents import matches, network_document, predefined_document
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import TenantId

ANN = TenantId("ann")


def test_all_of_ipam_is_shown_and_nothing_else() -> None:
    record = network_record(subnet="172.28.0.0/16", gateway="172.28.0.1")
    assert network_document(record, {})["IPAM"]["Config"] == [
        {"Subnet": "172.28.0.0/16", "Gateway": "172.28.0.1"}
    ]
    record = record.model_copy(
        update={"ip_range": "172.28.5.0/24", "aux_addresses": {"a": "172.28.1.5"}}
    )
    assert network_document(record, {})["IPAM"]["Config"] == [
        {
            "Subnet": "172.28.0.0/16",
            "IPRange": "172.28.5.0/24",
            "Gateway": "172.28.0.1",
            "AuxiliaryAddresses": {"a": "172.28.1.5"},
        }
    ]


def test_predefined_networks_are_each_tenants_own() -> None:
    own, other = (predefined_document(TenantId(name), "none") for name in ("ann", "bob"))
    assert own["Id"] != other["Id"]
    assert (own["Driver"], predefined_document(ANN, "host")["Driver"]) == ("null", "host")


@pytest.mark.parametrize(
    ("wanted", "is_used", "is_meant"),
    [
        ({}, False, True),
        ({"name": ("la",)}, False, True),
        ({"name": ("x",)}, False, False),
        ({"driver": ("bridge",)}, False, True),
        ({"scope": ("swarm",)}, False, False),
        ({"type": ("custom",)}, False, True),
        ({"type": ("builtin",)}, False, False),
        ({"dangling": ("true",)}, False, True),
        ({"dangling": ("true",)}, True, False),
        ({"dangling": ("0",)}, True, True),
        ({"label": ("a=b",)}, False, True),
        ({"label": ("a=c",)}, False, False),
    ],
)
def test_filters_of_the_list(wanted: dict[str, Any], *, is_used: bool, is_meant: bool) -> None:
    row = network_document(network_record(name="lab", labels={"a": "b"}), {})
    assert matches(row, wanted, is_used=is_used) is is_meant


def test_builtin_networks_are_not_dangling() -> None:
    row = predefined_document(ANN, "none")
    assert matches(row, {"type": ("builtin",)}, is_used=False)
    assert not matches(row, {"dangling": ("true",)}, is_used=False)


@pytest.mark.parametrize("wanted", [{"type": ("odd",)}, {"dangling": ("maybe",)}])
def test_a_value_that_means_nothing_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="invalid filter"):
        matches(network_document(network_record(), {}), wanted, is_used=False)
