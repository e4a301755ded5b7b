"""The builder's command line."""

from labfleet_proto.builds import BuildImage


def bud_words(request: BuildImage, context: str, dockerfile: str, id_file: str) -> list[str]:
    """Words of `buildah bud`; RUN shares the builder's own network, which is a container's."""
    words = ["buildah", "bud", "--isolation", "oci", "--runtime-flag", "cgroup-manager=disabled"]
    words += ["--format", "docker", "--pull-never", "--force-rm"]
    words += ["--layers"] if request.is_cached else ["--layers", "--no-cache"]
    words += ["--network", "host" if request.networks else "none"]
    words += ["--shm-size", str(request.limits.shm_bytes)]
    words += ["--iidfile", id_file, "-f", dockerfile]
    for name, value in sorted(request.build_args.items()):
        words += ["--build-arg", f"{name}={value}"]
    for name, value in sorted(request.labels.items()):
        words += ["--label", f"{name}={value}"]
    for host in request.extra_hosts:
        words += ["--add-host", host]
    return [*words, context]
