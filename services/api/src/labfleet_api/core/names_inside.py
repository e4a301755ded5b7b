"""Names that a container knows beside DNS: its `/etc/hosts`."""

from collections.abc import Sequence
from ipaddress import ip_address

from labfleet_proto.errors import ForbiddenError, InvalidRequestError


def extra_hosts(entries: Sequence[str]) -> tuple[str, ...]:
    """Check `name:address` entries. Raises InvalidRequestError, ForbiddenError (the host itself)."""
    for entry in entries:
        name, _, address = entry.partition(":")
        if address == "host-gateway":
            raise ForbiddenError(
                f"HostConfig.ExtraHosts: {entry}: containers do not reach the host they run on"
            )
        if name.split() != [name] or not _is_address(address):
            raise InvalidRequestError(f"invalid IP address in add-host: {entry!r}")
    return tuple(entries)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def servers(addresses: Sequence[str]) -> tuple[str, ...]:
    """Check addresses of DNS servers. Raises InvalidRequestError."""
    for address in addresses:
        if not _is_address(address):
            raise InvalidRequestError(
                f"bad format for DNS server: {address!r} is not an ip address"
            )
    return tuple(addresses)


def plain(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """Check words of one line of /etc/resolv.conf. Raises InvalidRequestError."""
    for word in words:
        if not word.isprintable() or word.split() != [word]:
            raise InvalidRequestError(f"HostConfig.{field}: {word!r} is not one word")
    return tuple(words)
