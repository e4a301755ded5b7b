"""testcontainers-python as its users write it; prints what it saw as JSON."""

import json
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

SERVE = ["sh", "-c", "mkdir /www; echo here > /www/index.html; echo ready; exec httpd -f -h /www"]


def fetch(container: DockerContainer) -> str:
    """Ask the container by the address that a test would use."""
    host, port = container.get_container_host_ip(), container.get_exposed_port(80)
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as answer:
        return answer.read().decode().strip()


def wait_strategies() -> dict[str, str]:
    """Each way to wait, then a request."""
    found = {}
    for name, strategy in (
        ("log", LogMessageWaitStrategy("ready")),
        ("http", HttpWaitStrategy(80).for_status_code(200)),
        ("port", PortWaitStrategy(80)),
        ("exec", ExecWaitStrategy(["test", "-e", "/www/index.html"])),
    ):
        made = DockerContainer("busybox").with_command(SERVE).with_exposed_ports(80)
        with made.waiting_for(strategy.with_startup_timeout(20)) as container:
            if name == "http":
                found[name] = fetch(container)
                continue
            HttpWaitStrategy(80).wait_until_ready(container)
            found[name] = fetch(container)
    return found


def healthy() -> str:
    """A health check given at create."""
    check = {"test": ["CMD", "test", "-e", "/ok"], "interval": 300_000_000, "retries": 50}
    command = ["sh", "-c", "sleep 1; touch /ok; exec sleep 600"]
    made = DockerContainer("busybox").with_command(command).with_kwargs(healthcheck=check)
    with made.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(20)) as container:
        container.get_wrapped_container().reload()
        return str(container.get_wrapped_container().health)


def network_and_files() -> dict[str, object]:
    """Two containers of one network, exec, logs, files in and out."""
    with (
        Network() as network,
        DockerContainer("busybox")
        .with_command(SERVE)
        .with_network(network)
        .with_network_aliases("site")
        .waiting_for(LogMessageWaitStrategy("ready")),
        DockerContainer("busybox")
        .with_command(["sleep", "600"])
        .with_env("COLOUR", "blue")
        .with_network(network) as asking,
    ):
        answer = asking.exec(["wget", "-q", "-O", "-", "http://site/"])
        colour = asking.exec(["sh", "-c", "echo $COLOUR; exit 3"])
        return {
            "answer": [answer.exit_code, answer.output.decode()],
            "colour": [colour.exit_code, colour.output.decode()],
            "logs": [part.decode() for part in asking.get_logs()],
        }


if __name__ == "__main__":
    print(json.dumps({"waits": wait_strategies(), "health": healthy(), **network_and_files()}))
