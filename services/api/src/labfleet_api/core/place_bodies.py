"""Bodies of networks, endpoints and volumes in docker's own field names."""

from pydantic import ConfigDict, Field

from labfleet_api.core.body import Body


class IpamConfig(Body):
    """Address wishes of an endpoint."""

    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: list[str] | None = None


class EndpointConfig(Body):
    """How a container joins a network. Facts of an earlier life are ignored, as docker does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    IPAMConfig: IpamConfig | None = None
    Aliases: list[str] | None = None
    Links: list[str] | None = None
    MacAddress: str = ""
    DriverOpts: dict[str, str] | None = None
    GwPriority: int = 0


_Endpoint = EndpointConfig
"""A name for where a field is called like its type."""


class NetworkingConfigBody(Body):
    """Networks to join."""

    EndpointsConfig: dict[str, EndpointConfig | None] | None = None


class IpamPool(Body):
    """One address pool of a network."""

    Subnet: str = ""
    Gateway: str = ""
    IPRange: str = ""
    AuxiliaryAddresses: dict[str, str] | None = None


class Ipam(Body):
    """Address management of a network."""

    Driver: str = ""
    Config: list[IpamPool] | None = None
    Options: dict[str, str] | None = None


class NetworkBody(Body):
    """Body of `POST /networks/create`."""

    Name: str = ""
    CheckDuplicate: bool = True
    Driver: str = ""
    Scope: str = ""
    Internal: bool = False
    Attachable: bool = False
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    IPAM: Ipam | None = None
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class ConnectBody(Body):
    """Body of `POST /networks/{id}/connect`."""

    Container: str = ""
    EndpointConfig: _Endpoint | None = None


class DisconnectBody(Body):
    """Body of `POST /networks/{id}/disconnect`."""

    Container: str = ""
    Force: bool = False


class VolumeBody(Body):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = Field(default=None)
