"""The images of courses: built without a registry of others, and doing what a course does with them.

`LABFLEET_COURSE_BUNDLE` may name a bundle of them (`labfleet image export`), which is then taken instead of building.
"""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm.environments import CLIENTS, python_environment
from tests.farm.fleet import LABFLEET, Fleet, free_port, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

IMAGES = Path(__file__).parents[2] / "deploy" / "images"
NAMES = ("debian", "python", "openjdk", "spark", "jupyter")
JOB = """
import socket
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
numbers = spark.sparkContext.parallelize(range(400), 40)
where = numbers.map(lambda number: (socket.gethostname(), number)).countByKey()
print("nodes", len(where), "numbers", sum(where.values()))
"""


@pytest.fixture(scope="module")
def course(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with all images of courses."""
    bundle = os.environ.get("LABFLEET_COURSE_BUNDLE")
    if bundle:
        shared_fleet.labfleet("image", "import", bundle, "--allow-unsigned")
    else:
        env = {**shared_fleet.env, "LABFLEET": LABFLEET, "LABFLEET_FLEET": shared_fleet.plan.name}
        done = subprocess.run(
            [str(IMAGES / "build.sh")], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield shared_fleet
    shared_fleet.clean()
    shared_fleet.docker("rmi", "-f", *reversed(NAMES), timeout_s=120)


@pytest.fixture
def fleet(course: Fleet) -> Iterator[Fleet]:
    yield course
    course.clean()


def test_each_language_is_there(fleet: Fleet) -> None:
    words = {
        "debian": ("cat", "/etc/os-release"),
        "python": ("python3", "-m", "pip", "--version"),
        "openjdk": ("java", "--version"),
    }
    said = [
        fleet.docker("run", "--rm", name, *run, timeout_s=200).out for name, run in words.items()
    ]
    for each, word in zip(said, ("Debian", "python3", "OpenJDK"), strict=True):
        assert word in each


def test_spark_reckons_pi(fleet: Fleet) -> None:
    example = "/opt/spark/examples/src/main/python/pi.py"
    done = fleet.docker("run", "--rm", "-m", "2g", "spark", "spark-submit", example, timeout_s=400)
    assert "Pi is roughly 3.1" in done.out


def test_spark_runs_over_three_nodes(fleet: Fleet) -> None:
    plugins = fleet.config / "cli-plugins"
    plugins.mkdir(exist_ok=True)
    plugin = plugins / "docker-compose"
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(python_environment(CLIENTS / "python.lock") / "bin" / "docker-compose")
    compose = ("compose", "-f", str(IMAGES / "spark" / "compose.yml"))
    fleet.docker(*compose, "up", "-d", "--scale", "worker=2", timeout_s=400)
    names = ("spark-master-1", "spark-worker-1", "spark-worker-2")
    assert len({fleet.host_of(name) for name in names}) == 3
    until(
        lambda: fleet.docker("logs", "spark-master-1").err.count("Registering worker") == 2,
        timeout_s=200,
        every_s=1,
    )
    fleet.docker(
        *compose, "exec", "-T", "master", "sh", "-c", "cat > /tmp/job.py", stdin=JOB.encode()
    )
    job = ("spark-submit", "--master", "spark://master:7077", "/tmp/job.py")
    done = fleet.docker(*compose, "exec", "-T", "master", *job, timeout_s=400)
    assert "nodes 2 numbers 400" in done.out
    fleet.docker(*compose, "down", "-t", "1", timeout_s=120)


def test_jupyter_answers(fleet: Fleet) -> None:
    port = free_port()
    fleet.docker(
        "run", "-d", "--name", "notebook", "-m", "1g", "-p", f"{port}:8888", "jupyter",
        "jupyter", "lab", "--ip", "0.0.0.0", "--no-browser", "--IdentityProvider.token=letmein",  # noqa: S104
        timeout_s=400,
    )  # fmt: skip

    def status(token: str) -> dict | int:
        address = f"http://127.0.0.1:{port}/api/status?token={token}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    answer = until(lambda: status("letmein"), timeout_s=200, every_s=0.5)
    assert isinstance(answer, dict)
    assert answer["kernels"] == 0
    assert status("wrong") == 403
