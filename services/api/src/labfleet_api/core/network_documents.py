"""Networks in docker's shape, and which of them a list's filters mean."""

import hashlib
from typing import Any

from labfleet_api.core import filters
from labfleet_api.core.times import rfc3339
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import TenantId
from labfleet_proto.networks import DEFAULT_NETWORK, NetworkRecord

Json = dict[str, Any]

WITHOUT = {"none": "null", "host": "host"}
"""Predefined networks that are no network of ours, and their drivers: clients expect them in lists."""
PREDEFINED = (DEFAULT_NETWORK, *WITHOUT)
_DEFAULT_OPTIONS = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
}


def network_document(record: NetworkRecord, members: dict[str, Json]) -> Json:
    """One network."""
    pool = {
        "Subnet": record.subnet,
        "IPRange": record.ip_range,
        "Gateway": record.gateway,
        "AuxiliaryAddresses": record.aux_addresses,
    }
    pools = [pool]
    if record.ipv6 is not None:
        pools.append(
            {
                "Subnet": record.ipv6.subnet,
                "IPRange": record.ipv6.ip_range,
                "Gateway": record.ipv6.gateway,
                "AuxiliaryAddresses": record.ipv6.aux_addresses,
            }
        )
    is_default = record.name == DEFAULT_NETWORK
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": rfc3339(record.created_at_ns),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": True,
        "EnableIPv6": record.has_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": record.ipam_options or None,
            "Config": [{key: value for key, value in each.items() if value} for each in pools],
        },
        "Internal": record.is_internal,
        "Attachable": record.is_attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": members,
        "Options": _DEFAULT_OPTIONS if is_default else record.options,
        "Labels": record.labels,
        "Labfleet": {"VNI": record.vni},
    }


def predefined_document(tenant: TenantId, name: str) -> Json:
    """`none` or `host`: a name that clients know, without anything behind it."""
    return {
        "Name": name,
        "Id": hashlib.sha256(f"{tenant} {name}".encode()).hexdigest(),
        "Created": rfc3339(0),
        "Scope": "local",
        "Driver": WITHOUT[name],
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": None},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def matches(row: Json, wanted: filters.Filters, *, is_used: bool) -> bool:
    """Whether all filters of a list mean this network. Raises InvalidRequestError."""
    is_builtin = row["Name"] in PREDEFINED
    for name, values in wanted.items():
        good = {
            "id": any(value in row["Id"] for value in values),
            "name": any(value in row["Name"] for value in values),
            "label": filters.labels_match(values, row["Labels"]),
            "driver": row["Driver"] in values,
            "scope": row["Scope"] in values,
            "type": ("builtin" if is_builtin else "custom") in values,
            "dangling": (not is_builtin and not is_used) is _truth(name, values[0]),
        }
        if name == "type" and not set(values) <= {"builtin", "custom"}:
            raise InvalidRequestError(f"invalid filter: 'type'='{values[0]}'")
        if not good[name]:
            return False
    return True


def _truth(name: str, value: str) -> bool:
    if value.lower() not in ("1", "true", "0", "false"):
        if name == "dangling":
            raise InvalidRequestError(f"invalid filter 'dangling={value}'")
        return False
    return value.lower() in ("1", "true")
