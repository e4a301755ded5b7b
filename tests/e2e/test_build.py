"""`docker build` by the classic builder's protocol: output, results, errors, isolation."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from tests.farm.fleet import Done, Fleet, until


def build(fleet: Fleet, folder: Path, *words: str, code: int | None = 0, **files: str) -> Done:
    """Build a folder with these files (`__` in a name is a dot)."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    env = {**fleet.env, "DOCKER_BUILDKIT": "0"}
    return fleet.docker("build", *words, str(folder), code=code, env=env, timeout_s=120)


def test_several_stages_arguments_labels_and_names(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "skipped").write_text("x")
    said = build(
        fleet, tmp_path, "--build-arg", "WHO=class", "--label", "course=os", "-t", "made/one:1",
        "-t", "made/two",
        Dockerfile="""ARG BASE=busybox
FROM $BASE AS first
ARG WHO
RUN echo "hello $WHO" > /made && echo to-stderr >&2
FROM busybox
COPY --from=first /made /copied
COPY . /context
ENV A=b
WORKDIR /context
USER nobody
EXPOSE 80/tcp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
ONBUILD RUN true
CMD ["cat", "/copied"]
""",
        __dockerignore="skipped\n",
        kept="kept",
    ).out  # fmt: skip
    assert "Step 2/17 : FROM $BASE AS first" in said
    assert "Successfully built " in said
    assert "Successfully tagged made/one:1\nSuccessfully tagged made/two:latest" in said
    about = json.loads(fleet.docker("image", "inspect", "made/one:1").out)[0]
    config = about["Config"]
    assert config["Labels"]["course"] == "os"
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == (
        "nobody",
        "/context",
        "SIGINT",
    )
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert config["OnBuild"] == ["RUN true"]
    assert "/data" in config["Volumes"]
    assert "80/tcp" in config["ExposedPorts"]
    assert fleet.docker("run", "--rm", "made/two").out == "hello class"
    assert "skipped" not in fleet.docker("run", "--rm", "made/two", "ls").out
    assert "kept" in fleet.docker("run", "--rm", "made/two", "ls").out
    again = build(fleet, tmp_path, "--build-arg", "WHO=class", "-q").out
    assert again.startswith("sha256:")
    cached = build(fleet, tmp_path, "--build-arg", "WHO=class", "--target", "first").out
    assert " ---> Using cache" in cached
    assert "Step 2/4" in cached
    fleet.docker("rmi", "made/one:1", "made/two")
    fleet.docker("image", "prune", "-f")


def test_errors_in_the_words_of_docker(fleet: Fleet, tmp_path: Path) -> None:
    run = build(fleet, tmp_path, Dockerfile="FROM busybox\nRUN exit 3\n", code=None)
    assert run.code == 3
    assert "The command '/bin/sh -c exit 3' returned a non-zero code: 3" in run.err
    copy = build(fleet, tmp_path, Dockerfile="FROM busybox\nCOPY nosuch /x\n", code=1)
    assert "COPY failed: file not found in build context" in copy.err
    parse = build(fleet, tmp_path, Dockerfile="FROM busybox\nRUNN x\n", code=1)
    assert "dockerfile parse error on line 2: unknown instruction: RUNN" in parse.err
    base = build(fleet, tmp_path, Dockerfile="FROM nosuch\n", code=1)
    assert "pull access denied for nosuch" in base.err
    target = build(fleet, tmp_path, "--target", "x", Dockerfile="FROM busybox\n", code=1)
    assert "failed to reach build target x" in target.err
    assert "Successfully" not in run.out + copy.out + base.out


def test_a_dockerfile_on_standard_input_and_without_cache(fleet: Fleet) -> None:
    env = {**fleet.env, "DOCKER_BUILDKIT": "0"}
    text = b"FROM busybox\nRUN date +%s%N > /when\n"
    made = [
        fleet.docker("build", "-q", "--no-cache", "-", stdin=text, env=env, timeout_s=120).out
        for _ in range(2)
    ]
    assert made[0] != made[1]
    assert fleet.docker("run", "--rm", made[1], "cat", "/when").out
    fleet.docker("image", "prune", "-f")


def test_a_step_has_no_more_power_than_a_container(fleet: Fleet, tmp_path: Path) -> None:
    script = (
        "FROM busybox\nRUN cat /proc/self/uid_map; grep CapEff /proc/self/status; ip -o -4 addr; "
        "grep Seccomp: /proc/self/status; mknod /disk b 254 0 || echo no-device; "
        "nslookup nothing.example >/dev/null 2>&1; ls /proc | grep -c '^[0-9]'\n"
    )
    said = build(fleet, tmp_path, "--no-cache", Dockerfile=script).out
    inside = fleet.docker("run", "--rm", "busybox", "sh", "-c", "ip -o -4 addr | grep eth0").out
    assert inside.split()[3].rsplit(".", 2)[0] in said  # the tenant's own network
    ids = next(line.split() for line in said.splitlines() if line.strip().startswith("0 "))
    assert int(ids[1]) >= 1_000_000
    assert ids[2] == "65536"
    assert "Seccomp:\t2" in said
    assert "no-device" in said
    caps = next(line.split()[1] for line in said.splitlines() if line.startswith("CapEff"))
    plain = fleet.docker(
        "run", "--rm", "busybox", "grep", "CapEff", "/proc/self/status"
    ).out.split()[1]
    raw_sockets = 1 << 13  # docker's default; a build has no flag to ask for it
    assert int(caps, 16) & ~(int(plain, 16) | raw_sockets) == 0
    none = build(fleet, tmp_path, "--network", "none", "--no-cache",
                 Dockerfile="FROM busybox\nRUN ip -o -4 addr | grep -c eth0 || true\n").out  # fmt: skip
    assert "\n0\n" in none
    refused = build(fleet, tmp_path, "--network", "host", Dockerfile="FROM busybox\n", code=1)
    assert "namespaces are never shared" in refused.err
    fleet.docker("image", "prune", "-f")


def _builders() -> list[str]:
    found = subprocess.run(
        ["pgrep", "-f", "sleep 4321"], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


@pytest.mark.parametrize("how", ["client", "agent"])
def test_a_build_ends_with_its_client_or_its_agent_and_leaves_nothing(
    fleet: Fleet, tmp_path: Path, how: str
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 4321\n")
    env = {**fleet.env, "DOCKER_BUILDKIT": "0"}
    with subprocess.Popen(["docker", "build", str(tmp_path)], env=env, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as client:  # fmt: skip
        until(_builders, 60)
        if how == "client":
            client.kill()
        else:
            for host in fleet.plan.hosts:
                fleet.kill_service(f"runtime-agent-{host.id}")
        until(lambda: not _builders(), 20)
    fleet.wait_ready()
    work = [
        fleet.plan.state_dir / "hosts" / host.id / "builder" / "work" for host in fleet.plan.hosts
    ]
    until(lambda: not any(any(path.iterdir()) for path in work if path.exists()), 20)
    end = time.monotonic() + 30
    while (done := fleet.labfleet("fsck", code=None)).code != 0:
        assert time.monotonic() < end, done.out
    assert build(fleet, tmp_path, "-q", Dockerfile="FROM busybox\nRUN true\n").out
    fleet.docker("image", "prune", "-f")


def test_usage_and_prunes(fleet: Fleet, tmp_path: Path) -> None:
    build(fleet, tmp_path, "-t", "made/used", Dockerfile="FROM busybox\nRUN echo x > /x\n")
    fleet.docker("create", "--name", "holder", "made/used")
    usage = json.loads(fleet.docker("system", "df", "--format", "{{json .}}").out.splitlines()[0])
    assert usage["Type"] == "Images"
    assert "Build Cache" in fleet.docker("system", "df").out
    verbose = fleet.docker("system", "df", "-v").out
    assert "made/used" in verbose
    assert "holder" in verbose
    assert "Total" in fleet.docker("builder", "prune", "-f").out
    assert "is using its referenced image" in fleet.docker("rmi", "made/used", code=1).err
    fleet.docker("rm", "holder")
    fleet.docker("rmi", "made/used")
