"""The builder's command line."""

from collections.abc import Mapping
from dataclasses import dataclass

from labfleet_proto.builds import BuildImage
from labfleet_runtime_agent.core.spec import within

_NO_LIMIT = -1


@dataclass(frozen=True)
class BuildFiles:
    """Paths of what a build needs."""

    context: str
    dockerfile: str
    ignored: str
    """What of the context is not to be seen."""
    hosts: str
    """`/etc/hosts` of the commands of RUN."""


def bud_words(request: BuildImage, files: BuildFiles, own: Mapping[str, int]) -> list[str]:
    """Words of `buildah bud`; RUN shares the builder's own network, which is a container's.

    Args:
        request: What is asked for.
        files: What it is built of.
        own: Hard limits of this process by docker's names, -1 for none: nothing has more.
    """
    words = ["buildah", "bud", "--isolation", "oci", "--runtime-flag", "cgroup-manager=disabled"]
    words += ["--format", "docker", "--pull-never", "--force-rm", "--identity-label=false"]
    words += ["--layers"] if request.is_cached else ["--layers", "--no-cache"]
    words += ["--skip-unused-stages=false"]  # docker builds all stages up to the target
    words += ["--network", "host" if request.networks and not request.is_offline else "none"]
    words += ["--cap-add", "CAP_NET_RAW"]  # docker's default; builds have no flag for it
    words += ["--shm-size", str(request.limits.shm_bytes)]
    words += ["-f", files.dockerfile, "--ignorefile", files.ignored]
    words += ["--volume", f"{files.hosts}:/etc/hosts"]  # the builder's own would name its host
    for limit in request.ulimits:
        most = own.get(limit.name, _NO_LIMIT)
        soft, hard = within(limit.soft, most), within(limit.hard, most)
        words += ["--ulimit", f"{limit.name}={soft}:{hard}"]
    for name, value in sorted(request.build_args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(request.labels.items()):
        words += ["--label", f"{name}={value}"]
    return [*words, files.context]


def hosts_file(request: BuildImage) -> str:
    """`/etc/hosts` of the commands of RUN."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for host in request.extra_hosts:
        name, _, address = host.partition(":")
        lines.append(f"{address}\t{name}")
    return "".join(f"{line}\n" for line in lines)


def ignore_file(text: str) -> str:
    """A `.dockerignore` without comments and the spaces that docker takes away."""
    found = []
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("!"):
            word = f"!{word[1:].strip()}"
        if word and not line.startswith("#"):
            found.append(word)
    return "".join(f"{word}\n" for word in found)
