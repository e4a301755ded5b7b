"""The rules of a host and of the entry, as text for nftables.

Few rules, many elements: ports and networks are elements of maps and sets, so a port costs one
element and never a reload.
"""

from ipaddress import IPv6Address

from labfleet_network.core import naming
from labfleet_network.core.addresses import is_ipv6, link_local6
from labfleet_proto.networks import ADDRESS_POOL, PublishedPort

_PROTOCOLS = ("tcp", "udp", "sctp")
ROUTER = "router"
"""Name of the table of a router, in a namespace of its own."""


def host_table(tag: str, underlay_subnet: str) -> str:
    """The table of a host, with empty sets; an older one of the same name is replaced.

    - A container reaches its own network, the world, and of the host only DNS and ping of its gateway.
    - Networks do not reach one another, nor the underlay with the control plane.
    - What leaves is masqueraded; published ports come in by DNAT.
    """
    table = f"{tag}-host"
    ports = "\n".join(_port_maps(protocol) for protocol in _PROTOCOLS)
    jumps = "\n".join(
        f"    fib daddr type local {protocol} dport @{protocol}_any dnat ip to {protocol} dport map @{protocol}_to"
        for protocol in _PROTOCOLS
    )
    return f"""
table ip {table}
delete table ip {table}
table ip {table} {{
  set bridges {{ type ifname; }}
  set open_bridges {{ type ifname; }}
  set routers {{ type ifname; }}
  set subnets {{ type ipv4_addr; flags interval; }}
{ports}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{jumps}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{jumps}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname @routers masquerade
    ip saddr 127.0.0.0/8 oifname @bridges masquerade
    ip saddr @subnets oifname @bridges ct status dnat masquerade
    ip saddr @subnets oifname != @bridges masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related accept
    ct status dnat oifname @bridges accept
    iifname @bridges ip daddr {underlay_subnet} drop
    iifname @bridges ip daddr {ADDRESS_POOL} drop
    iifname @bridges ip daddr 169.254.0.0/16 drop
    iifname @bridges oifname @bridges drop
    iifname @bridges iifname != @open_bridges drop
    oifname @bridges drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname @bridges ct state established,related accept
    iifname @bridges fib daddr . iif type local udp dport 53 accept
    iifname @bridges fib daddr . iif type local tcp dport 53 accept
    iifname @bridges fib daddr . iif type local icmp type echo-request accept
    iifname @bridges drop
  }}
}}
"""


def entry_table(tag: str, underlay_interface: str) -> str:
    """The table of the entry, with empty maps.

    For programs of the entry's own machine the gateway of any network leads to the published ports too, as that of
    docker's bridge does: clients in containers (Testcontainers) ask for it.
    """
    table = f"{tag}-entry"
    ports = "\n".join(_port_maps(protocol) for protocol in _PROTOCOLS)
    jumps = "\n".join(
        f"    fib daddr type local {protocol} dport @{protocol}_any dnat ip to {protocol} dport map @{protocol}_to"
        for protocol in _PROTOCOLS
    )
    gateways = "\n".join(
        f"    ip daddr {ADDRESS_POOL} {protocol} dport @{protocol}_any dnat ip to {protocol} dport map @{protocol}_to"
        for protocol in _PROTOCOLS
    )
    return f"""
table ip {table}
delete table ip {table}
table ip {table} {{
{ports}
  chain prerouting {{
    type nat hook prerouting priority -105; policy accept;
{jumps}
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
{jumps}
{gateways}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{underlay_interface}" ct status dnat masquerade
  }}
}}
"""


def router_table(*, is_open: bool) -> str:
    """The table of a router, with empty maps: DNS and ping of the gateway, the way out, ports in."""
    ports = "\n".join(_port_maps(protocol) for protocol in _PROTOCOLS)
    jumps = "\n".join(
        f"    iifname out {protocol} dport @{protocol}_any dnat ip to {protocol} dport map @{protocol}_to"
        for protocol in _PROTOCOLS
    )
    out = "iifname lan oifname out accept" if is_open else "iifname lan oifname out drop"
    return f"""
table ip {ROUTER} {{
{ports}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{jumps}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname out masquerade
    oifname lan ct status dnat masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related accept
    iifname out oifname lan ct status dnat accept
    {out}
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    iifname lan fib daddr . iif type local udp dport 53 accept
    iifname lan fib daddr . iif type local tcp dport 53 accept
    iifname lan fib daddr . iif type local icmp type echo-request accept
    iifname != lo drop
  }}
}}
"""


def _port_maps(protocol: str) -> str:
    return (
        f"  set {protocol}_any {{ type inet_service; }}\n"
        f"  map {protocol}_to {{ type inet_service : ipv4_addr . inet_service; }}"
    )


def add_port(table: str, port: PublishedPort, target: str, target_port: int) -> str:
    """Commands that lead a host port to an address and port."""
    protocol = port.protocol
    return (
        f"add element ip {table} {protocol}_to {{ {port.host_port} : {target} . {target_port} }}\n"
        f"add element ip {table} {protocol}_any {{ {port.host_port} }}\n"
    )


def delete_port(table: str, port: PublishedPort) -> str:
    """Commands that end it. Fails as a whole when it is not there."""
    protocol = port.protocol
    return (
        f"delete element ip {table} {protocol}_any {{ {port.host_port} }}\n"
        f"delete element ip {table} {protocol}_to {{ {port.host_port} }}\n"
    )


def add_network(
    table: str, bridge: str, subnet: str, *, is_open: bool, is_router: bool = False
) -> str:
    """Commands that admit a network's bridge, or the way to its router; again is nothing.

    A router sees only transit addresses: any other may lie in its network's own subnet.
    """
    commands = (
        f'add element ip {table} bridges {{ "{bridge}" }}\n'
        f"add element ip {table} subnets {{ {subnet} }}\n"
    )
    if is_router:
        commands += f'add element ip {table} routers {{ "{bridge}" }}\n'
    if is_open:
        commands += f'add element ip {table} open_bridges {{ "{bridge}" }}\n'
    return commands


def spoof_table(tag: str) -> str:
    """The bridge table: a port sends only from its own MAC and addresses, also in ARP and neighbour discovery.

    The host itself takes no part in the networks' IPv6: a router does.
    """
    table, own = f"{tag}-ports", "iifname . ether saddr"
    guests = "\n".join(
        f'    iifname "{tag}{kind}*" ether type ip6 drop'
        for kind in (naming.VETH, naming.VXLAN, naming.LAN)
    )
    return f"""
table bridge {table}
delete table bridge {table}
table bridge {table} {{
  set sources {{ type ifname . ether_addr . ipv4_addr; }}
  set sources6 {{ type ifname . ether_addr . ipv6_addr; }}
  set targets6 {{ typeof iifname . @th,64,128; }}
  set ports {{ type ifname; }}
  chain prerouting {{
    type filter hook prerouting priority filter; policy accept;
    iifname != @ports accept
    ether type arp {own} . arp saddr ip @sources iifname . arp saddr ether . arp saddr ip @sources accept
    ether type ip udp dport 67 drop
    ether type ip {own} . ip saddr @sources accept
    ether type != ip6 drop
    icmpv6 type {{ nd-router-advert, nd-redirect }} drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop
    udp sport 547 drop
    {own} . ip6 saddr @sources6 accept
    ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept
    drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
{guests}
  }}
}}
"""


def add_source(tag: str, veth: str, mac: str, *addresses: str) -> str:
    """Commands that let a port send from its addresses."""
    return (
        _sources("add", tag, veth, mac, addresses)
        + f'add element bridge {tag}-ports ports {{ "{veth}" }}\n'
    )


def delete_source(tag: str, veth: str, mac: str, *addresses: str) -> str:
    """Commands that forget a port. Fails as a whole when it is not there."""
    return (
        _sources("delete", tag, veth, mac, addresses)
        + f'delete element bridge {tag}-ports ports {{ "{veth}" }}\n'
    )


def _sources(verb: str, tag: str, veth: str, mac: str, addresses: tuple[str, ...]) -> str:
    table = f"{verb} element bridge {tag}-ports"
    lines = [
        f'{table} sources {{ "{veth}" . {mac} . {address} }}\n'
        for address in addresses
        if not is_ipv6(address)
    ]
    of_six = [address for address in addresses if is_ipv6(address)]
    for address in (*of_six, *([link_local6(mac)] if of_six else [])):
        lines.append(f'{table} sources6 {{ "{veth}" . {mac} . {address} }}\n')
        lines.append(f'{table} targets6 {{ "{veth}" . {int(IPv6Address(address)):#034x} }}\n')
    return "".join(lines)
