"""Settings that every service has. A service subclasses this with its own prefix."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Read once from the environment in `__main__.py`; frozen."""

    model_config = SettingsConfigDict(env_prefix="LABFLEET_", frozen=True, extra="ignore")

    fleet: str = Field(default="labfleet", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """Name of the fleet; kernel objects carry a tag derived from it."""
    nats_url: str = "nats://127.0.0.1:4222"
    nats_token: SecretStr = SecretStr("")
    state_dir: Path = Path("/var/lib/labfleet")
    """What must survive a reboot."""
    run_dir: Path = Path("/run/labfleet")
    """Sockets, pipes, mounts: gone with a reboot."""
    metrics_address: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """0 takes any free port; `labfleet status` shows which."""
    log_level: str = "info"
