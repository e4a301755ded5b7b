"""`docker build` in the words of docker's classic builder, with its options, and as a tenant."""

import bz2
import io
import json
import lzma
import re
import subprocess
import tarfile
from pathlib import Path

from tests.e2e.test_build import build
from tests.farm.fleet import Fleet, until
from tests.farm.tenant import Tenant

ID = re.compile(r"\b[0-9a-f]{12}\b")


def plain(text: str) -> str:
    """What was said from the first step on, with every id the same."""
    return ID.sub("ID", text[text.index("Step 1/") :])


def context(**files: str) -> bytes:
    """A tar of files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(text)
            tar.addfile(about, io.BytesIO(text.encode()))
    return made.getvalue()


def test_every_step_is_told_as_docker_tells_it(fleet: Fleet, tmp_path: Path) -> None:
    text = """ARG BASE=busybox
FROM $BASE AS one
ONBUILD RUN echo trigger
RUN printf 'no end'
from one
COPY f /
RUN echo "Error: none" >&2
"""
    run = " ---> Running in ID\n"
    done = "Removing intermediate container ID\n ---> ID\n"
    said = build(fleet, tmp_path, "--no-cache", "--label", "a=b", Dockerfile=text, f="f").out
    assert plain(said) == (
        f"Step 1/8 : ARG BASE=busybox\nStep 2/8 : FROM $BASE AS one\n ---> ID\n"
        f"Step 3/8 : ONBUILD RUN echo trigger\n{run}{done}"
        f"Step 4/8 : RUN printf 'no end'\n{run}no end{done}"
        f"Step 5/8 : from one\n# Executing 1 build trigger\n{run}trigger\n{done}"
        f"Step 6/8 : COPY f /\n ---> ID\n"
        f'Step 7/8 : RUN echo "Error: none" >&2\n{run}\x1b[91mError: none\n\x1b[0m{done}'
        f"Step 8/8 : LABEL a=b\n{run}{done}Successfully built ID"
    )
    image = said.splitlines()[-1].split()[-1]
    assert f" ---> {image}\nSuccessfully built" in said
    again = build(
        fleet, tmp_path, "--label", "a=b", "--build-arg", "NO=1", Dockerfile=text, f="f"
    ).out
    assert "[Warning] One or more build-args [NO] were not consumed\nSuccessfully" in again
    fleet.docker("image", "prune", "-f")


def test_errors_name_the_step_and_what_is_wrong(fleet: Fleet, tmp_path: Path) -> None:
    words = {
        'SHELL ["sh", "-ec"]\nRUN exit 4': "The command 'sh -ec exit 4' returned a non-zero code: 4",
        'RUN ["nosuch"]': 'exec: "nosuch": executable file not found in $PATH',
        "USER nosuch\nRUN true": "unable to find user nosuch: no matching entries in passwd file",
        "COPY ../x /x": "COPY failed: forbidden path outside the build context: ../x ()",
        "COPY nosuch* /x": "COPY failed: no source files were specified",
        "COPY a b /x": "When using COPY with more than one source file, the destination must be",
        "COPY --from=nosuch /x /x": "invalid from flag value nosuch: pull access denied for nosuch",
        "COPY --from=7 /x /x": "invalid from flag value 7: index out of bounds",
        "EXPOSE abc": "Invalid containerPort: abc",
    }
    for step, said in words.items():
        done = build(fleet, tmp_path, Dockerfile=f"FROM busybox\n{step}\n", code=None)
        assert done.code == (4 if "exit 4" in step else 1), done.err
        assert said in done.err
        assert "Step 2/" in done.out or "Step 3/" in done.out
    printed = build(fleet, tmp_path, Dockerfile="FROM busybox\nRUN printf x >&2; exit 2\n", code=2)
    assert "\x1b[91mx\x1b[0m" in printed.out
    parse = build(fleet, tmp_path, Dockerfile="FROM busybox\nENV a\n", code=1)
    assert "failed to parse Dockerfile: ENV must have two arguments" in parse.err


def test_options_of_build_reach_the_commands(fleet: Fleet, tmp_path: Path) -> None:
    script = (
        "FROM busybox\nRUN ulimit -n; ulimit -Hn; grep hosty /etc/hosts; "
        "df -k /dev/shm | tail -1 | awk '{print $2}'\nCOPY --chown=5:6 f /\nRUN ls -ln /f\n"
    )
    said = build(
        fleet, tmp_path, "--no-cache", "--network", "none", "--ulimit", "nofile=100:200",
        "--add-host", "hosty:1.2.3.4", "--shm-size", "9m", "--iidfile", str(tmp_path / "id"),
        Dockerfile=script, f="f",
    ).out  # fmt: skip
    assert "100\n200\n1.2.3.4\thosty\n9216\n" in said
    assert "5        6" in said
    image = (tmp_path / "id").read_text()
    assert image.startswith("sha256:")
    assert "hosty" not in fleet.docker("run", "--rm", image, "cat", "/etc/hosts").out
    squash = build(fleet, tmp_path, "--squash", Dockerfile=script, code=1)
    assert "squash" in squash.err
    fleet.docker("image", "prune", "-f")


def test_compressed_contexts_come_on_standard_input(fleet: Fleet) -> None:
    env = {**fleet.env, "DOCKER_BUILDKIT": "0"}
    tar = context(Dockerfile="FROM busybox\nRUN echo packed\n")
    for data in (bz2.compress(tar), lzma.compress(tar)):
        done = fleet.docker("build", "-", stdin=data, env=env, timeout_s=120)
        assert "packed" in done.out or "Using cache" in done.out
    fleet.docker("image", "prune", "-f")


def test_a_tenant_builds_like_the_operators_and_for_itself(
    fleet: Fleet, tenants: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    ann, bob = tenants
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN echo secret > /made; cat /proc/self/uid_map\n"
    )
    env = {**ann.env, "DOCKER_BUILDKIT": "0"}
    said = fleet.docker("build", "-t", "made", str(tmp_path), env=env, timeout_s=120).out
    assert "Successfully tagged made:latest" in said
    assert ann.docker("run", "--rm", "made", "cat", "/made").out == "secret"
    assert bob.docker("run", "--rm", "made", code=125).err
    assert "made" not in fleet.docker("images", "--format", "{{.Repository}}").out.split()
    (tmp_path / "Dockerfile").write_text("FROM made\nRUN cat /made\n")
    assert "secret" in fleet.docker("build", str(tmp_path), env=env, timeout_s=120).out
    refused = fleet.docker(
        "build", str(tmp_path), env={**bob.env, "DOCKER_BUILDKIT": "0"}, code=1, timeout_s=120
    )
    assert "pull access denied for made" in refused.err
    ann.docker("rmi", "made")
    ann.docker("image", "prune", "-f")


def _builder(fleet: Fleet) -> str:
    """The host that builds now; empty if none does."""
    for host in fleet.plan.hosts:
        work = fleet.plan.state_dir / "hosts" / host.id / "builder" / "work"
        if work.exists() and any(work.iterdir()):
            return str(host.id)
    return ""


def test_a_build_takes_room_on_its_host(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 4322\n")
    env = {**fleet.env, "DOCKER_BUILDKIT": "0"}
    words = ["docker", "build", "--no-cache", "--memory", "400m", str(tmp_path)]
    with subprocess.Popen(
        words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as client:
        try:
            host = str(until(lambda: _builder(fleet), 60))
            row = next(
                row[1]
                for row in json.loads(
                    fleet.docker("info", "--format", "{{json .DriverStatus}}").out
                )
                if row[0].strip() == host
            )
            most = int(re.findall(r"0 of (\d+) MiB", row)[0])
            nearly_all = (
                *("run", "--rm", "-m", f"{most - 200}m"),
                *("--label", f"labfleet.constraint=host=={host}", "busybox", "true"),
            )
            until(lambda: "memory" in fleet.docker(*nearly_all, code=None).err, 20)
        finally:
            client.kill()
    until(lambda: not _builder(fleet), 20)
    fleet.docker(*nearly_all)
