"""Settings of the image store, from `LABFLEET_IMAGE_STORE_*`."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from labfleet_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Where to listen, and which names are this store's."""

    model_config = SettingsConfigDict(
        env_prefix="LABFLEET_IMAGE_STORE_", frozen=True, extra="ignore"
    )

    fleet_secret: SecretStr
    """Password of the fleet's own services (`labfleet_proto.tenants.fleet_secret`)."""
    data_key: SecretStr
    """Hex; signs the tickets of the data port."""
    data_address: str = "127.0.0.1"
    data_port: int = Field(default=7403, ge=0, le=65_535)
    """For save, load, import and commit."""
    listen: str = "127.0.0.1:7402"
    """Comma separated `host:port`."""
    registry: str = "127.0.0.1:7402,localhost:7402"
    """Comma separated domains that mean this store in image names."""
    collect_every_s: float = Field(default=600, gt=0)
    collect_grace_s: float = Field(default=3600, ge=0)
    """A blob that nothing needs stays so long after it was last pushed or named by a push."""
    scrub_every_s: float = Field(default=7 * 86_400, gt=0)
    """All blobs are read again so often, counted from the beginning of one pass to that of the next."""
    scrub_bytes_per_s: float = Field(default=8 << 20, gt=0)
    """No faster than so: the disk is for those who pull. A pass that operators ask for has no limit."""
    host_silence_s: float = Field(default=5, gt=0)
    """So long a host may say nothing while a damaged blob is read from it; then the next one is asked."""
    fetched_keep_s: float = Field(default=30 * 86_400, gt=0)
    """What was fetched from an upstream stays so long after it was last asked for."""
