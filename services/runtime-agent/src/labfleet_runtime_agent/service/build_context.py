"""The context of a build: unpacked as it comes, or fetched, and the Dockerfile in it."""

import io
import os
import tarfile
from collections.abc import AsyncIterator

from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.builds import BuildImage
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import ContainerId
from labfleet_runtime_agent.adapters import archive, fetching, kernel
from labfleet_runtime_agent.adapters.archive import Read, RootView
from labfleet_runtime_agent.adapters.buildah import Registry, Room
from labfleet_runtime_agent.core import dockerfile
from labfleet_runtime_agent.core.build_words import ignore_file
from labfleet_runtime_agent.core.dockerfile import Recipe
from labfleet_runtime_agent.core.remotes import GitRemote, is_dockerfile, remote_of

_MOST_DOCKERFILE = 1 << 20
_DOCKERFILE = "Dockerfile"


async def take_context(
    room: Room, registry: Registry, request: BuildImage, stream: ByteStream
) -> BuildImage:
    """Fill the context as nobody; return what is asked for now. Raises LabfleetError."""
    is_whole = False

    async def more() -> bytes:
        nonlocal is_whole
        data = await frames.receive(stream)
        is_whole = not data
        return data

    if not request.remote:
        await _unpack(room, more)
    while not is_whole:
        await more()
    return await _fetch(room, registry, request) if request.remote else request


async def _unpack(room: Room, read_more: Read) -> None:
    root = os.open(room.context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    view = RootView(ContainerId("build"), root, os.dup(room.userns_fd))
    try:
        await archive.write(view, archive.Target("/", owner=(0, 0)), read_more)
    finally:
        view.close()


async def _fetch(room: Room, registry: Registry, request: BuildImage) -> BuildImage:
    """Fetch a context; a single Dockerfile is one, too."""
    remote = remote_of(request.remote)
    if isinstance(remote, GitRemote):
        found = await fetching.repository(room, registry, remote)
        room.context.rmdir()
        found.rename(room.context)
        return request
    body = fetching.body(room, registry, remote.url)
    head = await anext(body, b"")
    if is_dockerfile(head):
        text = head
        async for data in body:
            text += data
            if len(text) > _MOST_DOCKERFILE:
                raise InvalidRequestError(f"{remote.url}: neither an archive nor a Dockerfile")
        await _unpack(room, _reader(_packed(text)))
        return request.model_copy(update={"dockerfile": _DOCKERFILE})
    await _unpack(room, _reader(body, head))
    return request


def _packed(text: bytes) -> AsyncIterator[bytes]:
    """A tar with nothing but a Dockerfile."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        about = tarfile.TarInfo(_DOCKERFILE)
        about.size = len(text)
        tar.addfile(about, io.BytesIO(text))

    async def pieces() -> AsyncIterator[bytes]:
        yield file.getvalue()

    return pieces()


def _reader(pieces: AsyncIterator[bytes], head: bytes = b"") -> Read:
    """Reads a head and then some pieces; nothing at the end."""

    async def read() -> bytes:
        nonlocal head
        data, head = head, b""
        return data or await anext(pieces, b"")

    return read


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
    text = data.decode(errors="replace")
    return dockerfile.read(text, request.build_args, request.target, request.labels)
