"""A tenant of a test's fleet, with a token and the docker command line over TLS."""

import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.farm.fleet import Done, Fleet, until


@dataclass
class Tenant:
    """One tenant. Its directory holds a client certificate, too, which `env` does not use."""

    fleet: Fleet
    name: str
    token: str
    directory: Path

    @classmethod
    def create(cls, fleet: Fleet, name: str, directory: Path) -> "Tenant":
        """Make the tenant, a token and a certificate; an earlier one of the name may still go."""

        def is_made() -> bool:
            done = fleet.labfleet("tenant", "create", name, code=None)
            assert done.code == 0 or "try again" in done.out, done.out + done.err
            return done.code == 0

        until(is_made, 60)
        return cls.equip(fleet, name, directory)

    @classmethod
    def equip(cls, fleet: Fleet, name: str, directory: Path) -> "Tenant":
        """Make a token and a certificate of a tenant that is there."""
        token = fleet.labfleet("token", "create", "--tenant", name).out.strip()
        fleet.labfleet("tenant", "cert", name, "--out", str(directory / "cert"))
        ca = directory / "ca-only"
        ca.mkdir()
        (ca / "ca.pem").write_bytes((directory / "cert" / "ca.pem").read_bytes())
        made = cls(fleet, name, token, directory)
        made.config(token)
        return made

    def config(self, token: str, name: str = "config") -> Path:
        """A configuration of the docker command line that sends a token."""
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        headers = {"HttpHeaders": {"Authorization": f"Bearer {token}"}} if token else {}
        (folder / "config.json").write_text(json.dumps(headers))
        return folder

    @property
    def url(self) -> str:
        """Of the listener with TLS."""
        return f"tcp://{self.fleet.plan.choices.tls}"

    @property
    def env(self) -> dict[str, str]:
        """Docker over TLS with the token in a header."""
        return self._env(self.directory / "config", self.directory / "ca-only")

    @property
    def cert_env(self) -> dict[str, str]:
        """Docker over TLS with the client certificate alone."""
        return self._env(self.config("", "empty"), self.directory / "cert")

    def _env(self, config: Path, certificates: Path) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": self.url,
            "DOCKER_CONFIG": str(config),
            "DOCKER_CERT_PATH": str(certificates),
            "DOCKER_TLS_VERIFY": "1",
        }

    def docker(self, *words: str, stdin: bytes = b"", code: int | None = 0) -> Done:
        """Run the docker command line as this tenant."""
        return self.fleet.docker(*words, stdin=stdin, code=code, env=self.env)

    def http(self, token: str | None = None) -> httpx.Client:
        """A plain HTTP client with the tenant's token, or another; none if it is empty."""
        secret = self.token if token is None else token
        return httpx.Client(
            base_url=f"https://{self.fleet.plan.choices.tls}/v1.50",
            verify=ssl.create_default_context(cafile=str(self.directory / "cert" / "ca.pem")),
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            timeout=30,
        )

    def remove(self) -> None:
        """Take the tenant away with all that it has."""
        self.fleet.labfleet("tenant", "rm", "--force", self.name)
