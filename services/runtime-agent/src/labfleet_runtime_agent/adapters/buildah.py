"""buildah, run as nobody: inside a user namespace of the tenant's, with mounts and processes of its own.

The whole builder runs there, not only the commands of a build: unpacking, COPY and ADD, too. It dies with
the agent (parent-death signal) and everything that it started with it (the process namespace), and its
mounts are in a namespace that goes with them.
"""

import asyncio
import base64
import json
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from labfleet_proto.ids import TenantId

_ENTER = 'for file in $GROUPS_TO_ENTER; do echo $$ > "$file" || exit 125; done; exec "$@"'
_LINE = 1 << 20
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True)
class Room:
    """Where one build works."""

    path: Path
    storage: Path
    """Layers and images of the tenant's builds, kept as cache."""
    userns_fd: int
    first_id: int
    group_files: tuple[Path, ...]
    netns: str = ""
    """Network namespace to run in; empty: the agent's own."""

    @property
    def context(self) -> Path:
        """The unpacked context."""
        return self.path / "context"

    @property
    def recipe(self) -> Path:
        """The Dockerfile as the builder reads it."""
        return self.path / "Dockerfile"

    @property
    def ignored(self) -> Path:
        """What of the context is not to be seen."""
        return self.path / "ignored"

    @property
    def hosts(self) -> Path:
        """`/etc/hosts` of the commands of RUN, which may change it."""
        return self.path / "hosts-of-run"

    @property
    def fetched(self) -> Path:
        """Where a context is fetched to that is not sent."""
        return self.path / "fetched"

    def full_id(self, short: str) -> str:
        """The id of an image of the cache, of which the builder says eleven or twelve digits only."""
        found = sorted((self.storage / "overlay-images").glob(f"{short}*"))
        return found[0].name if found else short

    def outside(self) -> "Room":
        """The same room with the agent's own network: nothing of the Dockerfile runs there."""
        return replace(self, netns="")


@dataclass(frozen=True)
class Registry:
    """The image store, as the builder reaches it while it pulls and pushes."""

    url: str
    secret: str
    """A pass for the tenant, never the fleet's own password."""
    tenant: TenantId

    @property
    def location(self) -> str:
        """`host:port`."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def config(self) -> str:
        """`registries.conf`: every name is the store's."""
        insecure = f'[[registry]]\nprefix = "{self.location}"\nlocation = "{self.location}"\ninsecure = true\n'
        hub = f'[[registry]]\nprefix = "docker.io"\nlocation = "{self.location}"\ninsecure = true\n'
        return f'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "disabled"\n{hub}{insecure}'

    def auth(self) -> str:
        """The login for the tenant."""
        word = base64.b64encode(f"{self.tenant}:{self.secret}".encode()).decode()
        return json.dumps(
            {"auths": {each: {"auth": word} for each in ("docker.io", self.location)}}
        )


def prepare(room: Room, registry: Registry, *, hosts_of_run: str, resolv: str) -> None:
    """Make the room's files, all the builder's own."""
    (room.path / "run").mkdir(exist_ok=True)
    (room.path / "etc" / "registries.d").mkdir(parents=True, exist_ok=True)
    room.context.mkdir(exist_ok=True)
    room.storage.mkdir(parents=True, exist_ok=True)
    files = {
        "storage.conf": (
            f'[storage]\ndriver = "overlay"\ngraphroot = "{room.storage}"\n'
            f'runroot = "{room.path / "run"}"\n'
        ),
        "hosts": _HOSTS,
        room.hosts.name: hosts_of_run,
        "resolv.conf": resolv,
        "etc/registries.d/none.yaml": f"default-docker:\n  lookaside: file://{room.path}/etc/none\n",
        "etc/registries.conf": registry.config(),
        "etc/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
    }
    for name, text in files.items():
        (room.path / name).write_text(text)
    for path in (room.path, room.storage, *room.path.rglob("*")):
        os.chown(path, room.first_id, room.first_id)
        path.chmod(0o700 if path.is_dir() else 0o644)


async def start(
    room: Room, script: str, registry: Registry, *, runtime: str, with_login: bool
) -> asyncio.subprocess.Process:
    """Start a shell script of builder's commands; its output is to be read by the caller."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(room.path),
        "TMPDIR": str(room.path),
        "XDG_RUNTIME_DIR": str(room.path / "run"),
        "CONTAINERS_STORAGE_CONF": str(room.path / "storage.conf"),
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        "BUILDAH_RUNTIME": runtime,
        "GROUPS_TO_ENTER": " ".join(str(file) for file in room.group_files),
    }
    auth = room.path / "auth.json"
    if with_login:
        auth.touch(mode=0o600)
        auth.write_text(registry.auth())
        os.chown(auth, room.first_id, room.first_id)
        env["REGISTRY_AUTH_FILE"] = str(auth)
    else:
        auth.unlink(missing_ok=True)  # before anything of the Dockerfile runs
    binds = "".join(
        words("mount", "--bind", room.path / name, f"/etc/{name}") + " && "
        for name in ("hosts", "resolv.conf")
    ) + words("mount", "--bind", room.path / "etc", "/etc/containers")
    net = [f"--net={room.netns}"] if room.netns else []
    argv = [
        *("sh", "-c", _ENTER, "sh"),
        *("nsenter", *net, f"--user=/proc/self/fd/{room.userns_fd}", "-S", "0", "-G", "0"),
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-c", f"{binds} && {script}"),
    ]
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd="/",
        pass_fds=(room.userns_fd,),
        limit=_LINE,
    )


def words(*parts: str | Path) -> str:
    """A command line of a shell."""
    return shlex.join(str(part) for part in parts)


async def chunks(reader: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """A program's output as it comes."""
    while reader is not None and (data := await reader.read(1 << 16)):
        yield data


async def lines(reader: asyncio.StreamReader | None) -> AsyncIterator[str]:
    """Lines of a program's output; one that is too long comes in pieces."""
    rest = b""
    async for data in chunks(reader):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > _LINE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")


def is_there() -> bool:
    """Whether this host can build."""
    return shutil.which("buildah") is not None


def pull_script(images: Sequence[tuple[str, str]]) -> str:
    """Fetch what is not there yet; each image is its id and where to get it."""
    commands = []
    for image_id, source in images:
        bare = image_id.removeprefix("sha256:")
        have = words("buildah", "inspect", "--type", "image", bare)
        pull = words("buildah", "pull", "-q", source)
        commands.append(f"{{ {have} >/dev/null 2>&1 || {pull} >/dev/null; }}")
    return " && ".join(commands) or "true"
