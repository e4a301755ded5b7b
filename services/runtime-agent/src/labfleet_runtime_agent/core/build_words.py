"""The builder's command line."""

from labfleet_proto.builds import BuildImage


def bud_words(
    request: BuildImage, context: str, dockerfile: str, ignored: str, id_file: str
) -> list[str]:
    """Words of `buildah bud`; RUN shares the builder's own network, which is a container's."""
    words = ["buildah", "bud", "--isolation", "oci", "--runtime-flag", "cgroup-manager=disabled"]
    words += ["--format", "docker", "--pull-never", "--force-rm", "--identity-label=false"]
    words += ["--layers"] if request.is_cached else ["--layers", "--no-cache"]
    words += ["--network", "host" if request.networks else "none"]
    words += ["--cap-add", "CAP_NET_RAW"]  # docker's default; builds have no flag for it
    words += ["--shm-size", str(request.limits.shm_bytes)]
    words += ["--iidfile", id_file, "-f", dockerfile, "--ignorefile", ignored]
    for name, value in sorted(request.build_args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(request.labels.items()):
        words += ["--label", f"{name}={value}"]
    for host in request.extra_hosts:
        words += ["--add-host", host]
    return [*words, context]


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
