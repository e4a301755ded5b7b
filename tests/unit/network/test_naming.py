"""Names of kernel objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_network.core.naming import bridge, namespace, short, sysctl_path, veth, vxlan
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId, NetworkId

LONGEST_INTERFACE = 15
"""IFNAMSIZ of the kernel is 16 with the final NUL."""

tags = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
hex_ids = st.text("0123456789abcdef", min_size=64, max_size=64)
any_ids = hex_ids | st.text(max_size=80)


@given(tags, any_ids, any_ids)
def test_an_interface_name_fits_the_kernel(tag: str, container: str, network: str) -> None:
    names = (
        bridge(tag, NetworkId(network)),
        vxlan(tag, NetworkId(network)),
        veth(tag, ContainerId(container), NetworkId(network)),
    )
    assert all(len(name) <= LONGEST_INTERFACE and name.isascii() for name in names)


@given(tags, hex_ids, hex_ids)
def test_names_of_different_things_differ(tag: str, container: str, network: str) -> None:
    names = {
        bridge(tag, NetworkId(network)),
        vxlan(tag, NetworkId(network)),
        veth(tag, ContainerId(container), NetworkId(network)),
        namespace(tag, ContainerId(container)),
    }
    assert len(names) == 4


def test_a_container_has_an_interface_per_network() -> None:
    names = {veth("lf", ContainerId(c * 64), NetworkId(n * 64)) for c in "ab" for n in "cd"}
    assert len(names) == 4


@given(hex_ids)
def test_an_id_is_recognised_in_its_bridge(network: str) -> None:
    assert bridge("lf", NetworkId(network)) == f"lfb{network[:8]}"


@pytest.mark.parametrize("text", ["", "default", "ABCDEF" * 10 + "ABCD", "lab-1"])
def test_anything_else_is_hashed_to_the_same_form(text: str) -> None:
    digits = short(text)
    assert len(digits) == 8
    assert set(digits) <= set("0123456789abcdef")


def test_a_namespace_begins_with_the_fleet_and_names_the_container() -> None:
    assert namespace("lf", ContainerId("ab" * 32)) == "lf-" + "ab" * 16


def test_a_setting_of_the_network_is_a_file_below_its_own() -> None:
    assert sysctl_path("net.core.somaxconn") == "/proc/sys/net/core/somaxconn"
    assert sysctl_path("net/ipv4/ip_forward") == "/proc/sys/net/ipv4/ip_forward"
    for name in ("kernel.panic", "net", "net..core", "net.../kernel/panic", "net.core.a b"):
        with pytest.raises(InvalidRequestError):
            sysctl_path(name)
