"""Links, addresses, routes, forwarding and neighbour entries over netlink (pyroute2).

Blocking; called in a thread. Everything says "already so" when it is.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from labfleet_proto.errors import InternalError

_AF_BRIDGE = 7
_NUD_NOARP = 0x40
"""A static entry of a bridge; a permanent one would mean that the address is the bridge's own."""
_NUD_PERMANENT = 0x80
_NTF_SELF = 0x02
"""The entry is the tunnel's own, not its bridge's, which is what `replace` means by itself."""
_ALL_ZERO = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Neighbour:
    """A container on another host, as this host must know it."""

    address: str
    mac: str
    vtep: str


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as exc:
        raise InternalError(f"{what}: {exc}") from exc


def set_sysctl(name: str, value: str) -> None:
    """Set a network setting of the current namespace; a missing one is skipped."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net", name).write_text(value)


class Links:
    """Links of the namespace that the service lives in."""

    def __init__(self) -> None:
        self._ip = IPRoute()

    def index(self, name: str) -> int | None:
        """Index of a link; None if there is none."""
        found = self._ip.link_lookup(ifname=name)
        return int(found[0]) if found else None

    def names(self, prefix: str) -> set[str]:
        """Links whose name begins with `prefix`."""
        return {name for _, name in socket.if_nameindex() if name.startswith(prefix)}

    def delete(self, name: str) -> None:
        """Delete a link; absent is success."""
        index = self.index(name)
        if index is not None:
            with contextlib.suppress(NetlinkError):
                self._ip.link("del", index=index)

    def ensure_bridge(self, name: str, mac: str, address: str, prefix: int, mtu: int) -> int:
        """Make a bridge with the gateway's address and MAC; without an address if that is empty.

        Raises InternalError.
        """
        with _named(f"make bridge {name}"):
            index = self.index(name)
            if index is None:
                self._ip.link("add", ifname=name, kind="bridge", address=mac, mtu=mtu)
                index = self._need(name)
                for setting in ("br_stp_state", "br_forward_delay"):
                    with contextlib.suppress(NetlinkError):
                        self._ip.link("set", index=index, kind="bridge", **{setting: 0})
            if address:
                self.give_address(index, address, prefix)
            self._ip.link("set", index=index, state="up")
            return index

    def give_address(self, index: int, address: str, prefix: int) -> None:
        """Give a link an address; that it has it is success."""
        with contextlib.suppress(NetlinkError):
            self._ip.addr("add", index=index, address=address, prefixlen=prefix)

    def ensure_vxlan(self, name: str, vni: int, bridge: int, underlay: dict[str, Any]) -> int:
        """Make a VXLAN device without learning on a bridge. Raises InternalError.

        Args:
            name: Of the device.
            vni: Network identifier.
            bridge: Index of the bridge.
            underlay: `local` address, `port`, `link` index, `mtu`.
        """
        with _named(f"make vxlan {name}"):
            index = self.index(name)
            if index is None:
                self._ip.link(
                    "add",
                    ifname=name,
                    kind="vxlan",
                    vxlan_id=vni,
                    vxlan_local=underlay["local"],
                    vxlan_link=underlay["link"],
                    vxlan_port=underlay["port"],
                    vxlan_learning=False,
                    mtu=underlay["mtu"],
                )
                index = self._need(name)
                self._ip.link("set", index=index, master=bridge)
                with contextlib.suppress(NetlinkError):
                    self._ip.brport("set", index=index, neigh_suppress=1, learning=0)
            self._ip.link("set", index=index, state="up")
            return index

    def _need(self, name: str) -> int:
        index = self.index(name)
        if index is None:
            raise InternalError(f"link {name} vanished while it was made")
        return index

    def learned(self, vxlan: int, bridge: int) -> set[Neighbour]:
        """Entries of remote containers that the kernel has now."""
        vteps: dict[str, str] = {}
        for entry in self._ip.get_neighbours(family=_AF_BRIDGE, ifindex=vxlan):
            mac, target = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
            if mac and target and mac != _ALL_ZERO:
                vteps[mac] = target
        found = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in self._ip.get_neighbours(family=family, ifindex=bridge):
                mac, address = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
                if mac in vteps and address:
                    found.add(Neighbour(address, mac, vteps[mac]))
        return found

    def teach(self, vxlan: int, bridge: int, one: Neighbour) -> None:
        """Add a remote container: where its frames go, and the answer to ARP for it."""
        with _named(f"teach {one.address} at {one.vtep}"):
            self._ip.fdb("replace", ifindex=vxlan, lladdr=one.mac, dst=one.vtep, flags=_NTF_SELF)
            self._ip.fdb("replace", ifindex=vxlan, lladdr=one.mac, master=bridge, state=_NUD_NOARP)
            for index in (bridge, vxlan):
                self._ip.neigh(
                    "replace",
                    family=_family(one.address),
                    dst=one.address,
                    lladdr=one.mac,
                    ifindex=index,
                    state=_NUD_PERMANENT,
                )

    def unteach(
        self, vxlan: int, bridge: int, one: Neighbour, *, keeps_frames: bool = False
    ) -> None:
        """Forget a remote container; unknown is success.

        `keeps_frames`: it has another address, so that its frames still go there.
        """
        for index in (bridge, vxlan):
            with contextlib.suppress(NetlinkError):
                self._ip.neigh(
                    "del",
                    family=_family(one.address),
                    dst=one.address,
                    lladdr=one.mac,
                    ifindex=index,
                )
        if keeps_frames:
            return
        with contextlib.suppress(NetlinkError):
            self._ip.fdb("del", ifindex=vxlan, lladdr=one.mac, master=bridge)
        with contextlib.suppress(NetlinkError):
            self._ip.fdb("del", ifindex=vxlan, lladdr=one.mac, dst=one.vtep, flags=_NTF_SELF)
