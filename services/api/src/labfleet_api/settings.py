"""Settings of the api, from `LABFLEET_API_*`."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from labfleet_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Where to listen, and the key of the data ports."""

    model_config = SettingsConfigDict(env_prefix="LABFLEET_API_", frozen=True, extra="ignore")

    socket: Path = Path("/run/labfleet/docker.sock")
    """Its file mode is 0600: whoever may open it is an operator."""
    tcp_address: str = ""
    """Empty: no plain TCP. Requests need a token, which crosses the wire in the clear: loopback only."""
    tcp_port: int = Field(default=2375, ge=0, le=65_535)
    tls_address: str = ""
    """Empty: no TLS. Requests need a token or a client certificate."""
    tls_port: int = Field(default=2376, ge=0, le=65_535)
    tls_dir: Path = Path("/var/lib/labfleet/tls")
    """Holds `ca.pem`, `server.pem`, `server-key.pem`; renewed files are taken within a minute."""
    data_key: SecretStr
    """Hex; signs the tickets of the data ports."""
    registry: str = "127.0.0.1:7402"
    """Domain of the fleet's own image store, for `docker info`."""
    image_store: str = "127.0.0.1:7403"
    """`host:port` of the image store's data port."""
