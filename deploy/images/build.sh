#!/bin/sh
# Builds the course images in a fleet, without any registry of others: `build.sh [NAME...]`, all by default.
#
# Debian's packages come from the mirror that the fleet's hosts reach; wheels come to this machine by
# its own pip, whose settings then hold (a mirror, certificates, a folder), and are copied into the image.
# DOCKER_HOST and LABFLEET_FLEET say which fleet, LABFLEET where its command is.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
: "${DOCKER_HOST:=unix:///run/labfleet/docker.sock}"
: "${LABFLEET:=$here/../../.venv/bin/labfleet}"
: "${PYTHON:=python3}"
export DOCKER_HOST
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

context_of() { # NAME: a copy of its directory, with room for wheels
    mkdir -p "$scratch/$1/wheels"
    cp -R "$here/$1/." "$scratch/$1"
}

python_of_image() {
    docker run --rm python python3 -c 'import platform; print(platform.python_version())'
}

build() { # NAME: after what it begins from
    name=$1
    case $name in
    debian)
        docker image inspect debian >/dev/null 2>&1 || "$LABFLEET" image bootstrap debian
        return
        ;;
    python) need debian ;;
    openjdk | jupyter) need python ;;
    spark) need openjdk ;;
    *)
        echo "build.sh: no image '$name' here; there are debian, python, openjdk, spark, jupyter" >&2
        exit 2
        ;;
    esac
    context=$here/$name
    case $name in
    spark) # has no wheel of its own anywhere; this one is good for any Python
        context_of spark && context=$scratch/spark
        "$PYTHON" -m pip wheel --quiet --wheel-dir "$context/wheels" 'pyspark==3.5.*'
        ;;
    jupyter)
        context_of jupyter && context=$scratch/jupyter
        "$PYTHON" -m pip download --quiet --dest "$context/wheels" --only-binary=:all: \
            --python-version "$(python_of_image)" 'jupyterlab==4.*' 'jupyterhub==5.*'
        ;;
    esac
    echo "== $name"
    DOCKER_BUILDKIT=0 docker build --tag "$name" "$context"
}

need() {
    docker image inspect "$1" >/dev/null 2>&1 || (build "$1")
}

[ $# -gt 0 ] || set -- debian python openjdk spark jupyter
for image in "$@"; do
    build "$image"
done
