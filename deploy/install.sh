#!/bin/sh
# Installs what a fleet needs on a Debian machine: packages, and a virtual environment from a hash-locked list.
# Usage: deploy/install.sh [dev]      Run again it changes nothing and takes well under a second.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
python=${PYTHON:-/usr/bin/python3}

[ "$(id -u)" = 0 ] || { echo "install: run as root (containers and networks need it)" >&2; exit 1; }

missing=
need() { # program package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need crun crun
need conmon conmon
need buildah buildah
need nft nftables
need ip iproute2
need nsenter util-linux
need git git
need ps procps
need mmdebstrap mmdebstrap
[ -x /bin/busybox ] && dpkg-query -W busybox-static >/dev/null 2>&1 || missing="$missing busybox-static"
[ -x /usr/bin/tini-static ] || missing="$missing tini" # docker run --init
ldconfig -p | grep -q 'libnftables.so.1' || missing="$missing libnftables1"
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ "$kind" = dev ]; then
    need skopeo skopeo
    need podman podman
    need docker-registry docker-registry # other registries of tests; its own service may be switched off
    need htpasswd apache2-utils
    need node nodejs
    need npm npm
fi
if [ -n "$missing" ]; then
    echo "install: Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

lock=requirements.lock
[ "$kind" = dev ] && lock=requirements-dev.lock
stamp=.venv/.installed
wanted="$kind $(cat requirements.lock requirements-dev.lock pyproject.toml | sha256sum)"
if [ -f "$stamp" ]; then
    [ "$(cat "$stamp")" = "$wanted" ] && exit 0
    # An environment for development also runs a fleet.
    [ "$kind" = run ] && [ "$(cat "$stamp")" = "dev ${wanted#run }" ] && exit 0
fi
echo "install: virtual environment from $lock"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" > "$stamp"
