"""Bodies of networks, endpoints and volumes in docker's own field names."""

from pydantic import ConfigDict, Field

from labfleet_api.core.body import Body


class IpamConfig(Body):
    """Address wishes of an endpoint."""

    IPv4Address: str = ""
    IPv6Address: str = ""


class EndpointConfig(Body):
    """How a container joins a network. Facts of an earlier life are ignored, as docker does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    IPAMConfig: IpamConfig | None = None
    Aliases: list[str] | None = None
    Links: list[str] | None = None
    MacAddress: str = ""


class NetworkingConfigBody(Body):
    """Networks to join."""

    EndpointsConfig: dict[str, EndpointConfig | None] | None = None


class IpamPool(Body):
    """One address pool of a network."""

    Subnet: str = ""
    Gateway: str = ""
    IPRange: str = ""


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
    IPAM: Ipam | None = None
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class VolumeBody(Body):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = Field(default=None)
