"""Settings of the scheduler, from `LABFLEET_SCHEDULER_*`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from labfleet_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """How to place."""

    model_config = SettingsConfigDict(env_prefix="LABFLEET_SCHEDULER_", frozen=True, extra="ignore")

    score: Literal["spread", "pack"] = "spread"
    port_first: int = Field(default=40_000, ge=1024, le=65_535)
    port_last: int = Field(default=49_999, ge=1024, le=65_535)
