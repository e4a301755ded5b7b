"""The context of a build: unpacked as it comes, and the Dockerfile in it."""

import os

from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.builds import BuildImage
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters import archive, kernel
from labfleet_runtime_agent.adapters.archive import RootView
from labfleet_runtime_agent.adapters.buildah import Room
from labfleet_runtime_agent.core import dockerfile
from labfleet_runtime_agent.core.build_words import ignore_file
from labfleet_runtime_agent.core.dockerfile import Recipe

_MOST_DOCKERFILE = 1 << 20


async def take_context(room: Room, stream: ByteStream) -> None:
    """Unpack the context as nobody, as it comes. Raises LabfleetError."""
    root = os.open(room.context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    view = RootView(ContainerId("build"), root, os.dup(room.userns_fd))
    try:
        is_whole = False

        async def more() -> bytes:
            nonlocal is_whole
            data = await frames.receive(stream)
            is_whole = not data
            return data

        await archive.write(view, archive.Target("/", owner=(0, 0)), more)
        while not is_whole:
            await more()
    finally:
        view.close()


def read_recipe(room: Room, request: BuildImage) -> Recipe:
    """Read the Dockerfile, and what is ignored. Raises InvalidRequestError in docker's words."""
    recipe = _read_dockerfile(room, request)
    try:
        ignored = _read_file(room, ".dockerignore").decode(errors="replace")
    except OSError:
        ignored = ""
    room.ignored.write_text(ignore_file(ignored))
    return recipe


def _read_file(room: Room, name: str) -> bytes:
    """A small file beneath the context. Raises OSError."""
    root = os.open(room.context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = kernel.open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(_MOST_DOCKERFILE + 1)
    finally:
        os.close(root)


def _read_dockerfile(room: Room, request: BuildImage) -> Recipe:
    try:
        data = _read_file(room, request.dockerfile)
    except OSError as exc:
        raise InvalidRequestError(
            f"Cannot locate specified Dockerfile: {request.dockerfile}"
        ) from exc
    if len(data) > _MOST_DOCKERFILE:
        raise InvalidRequestError(f"the Dockerfile is larger than {_MOST_DOCKERFILE} bytes")
    if not data.strip():
        raise InvalidRequestError(f"the Dockerfile ({request.dockerfile}) cannot be empty")
    return dockerfile.read(data.decode(errors="replace"), request.build_args, request.target)
