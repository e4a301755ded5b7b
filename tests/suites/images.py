"""Images by the names that the suites expect, made of this machine's own programs.

busybox with the accounts that Alpine has, and the interpreter of this machine where a suite wants Python.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labfleet_cli import bootstrap, oci_image

_ACCOUNTS = """root:x:0:0:root:/root:/bin/sh
postgres:x:70:70::/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
_GROUP = "root:x:0:root\npostgres:x:70:\nnobody:x:65534:\n"
_PYTHON = Path("/usr/bin/python3")
_LEFT_OUT = re.compile(
    r"/(config-[^/]*|test|tests|idlelib|lib2to3|pydoc_data|ensurepip|__pycache__)(/|$)"
)

PLAIN = ("busybox:latest", "alpine:3.10", "alpine:latest", "alpine:3.18")
GREETING = ("hello-world:latest",)
PYTHON = ("python:3.13-alpine", "python:3.14-alpine", "python:latest")


def write(folder: Path) -> list[Path]:
    """Archives that `docker load` takes, one for each kind of image."""
    base = folder / "busybox.tar"
    bootstrap._busybox(base)
    accounts = folder / "accounts.tar"
    _tar(
        accounts,
        [("etc/passwd", _ACCOUNTS.encode()), ("etc/group", _GROUP.encode()), ("var/opt/", b"")],
    )
    hello = folder / "hello.tar"
    _tar(hello, [("hello", b'#!/bin/sh\necho "Hello from Docker!"\n')])
    python = folder / "python.tar"
    _python(python)
    return [
        _archive(folder / "plain.tar", PLAIN, (base, accounts), ["sh"]),
        _archive(folder / "greeting.tar", GREETING, (base, hello), ["/hello"]),
        *(
            _archive(
                folder / f"python{number}.tar", [tag], (base, accounts, python), ["python"], tag
            )
            for number, tag in enumerate(PYTHON)
        ),
    ]


def tags_of(archive: Path) -> list[str]:
    """The names of the image in an archive."""
    with tarfile.open(archive) as tar:
        index = tar.extractfile("manifest.json")
        assert index is not None
        return list(json.load(index)[0]["RepoTags"])


def _tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))


def _python(path: Path) -> None:
    """The interpreter, its library and the shared objects that they need."""
    binary = _PYTHON.resolve()
    library = Path("/usr/lib") / binary.name
    shared = set()
    for program in (binary, *(library / "lib-dynload").glob("*.so")):
        words = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        shared |= set(re.findall(r"(/\S+) \(0x", words))
    with tarfile.open(path, "w", dereference=True) as archive:
        archive.add(binary, "usr/local/bin/python")
        archive.add(binary, "usr/local/bin/python3")
        archive.add(
            library,
            f"usr/lib/{binary.name}",
            filter=lambda member: None if _LEFT_OUT.search(f"/{member.name}") else member,
        )
        for file in sorted(shared):
            archive.add(file, file.lstrip("/"))


def _archive(
    path: Path, tags: Sequence[str], layers: Sequence[Path], command: list[str], mark: str = ""
) -> Path:
    """One image in the form of `docker save`; `mark` makes it differ from one with the same files."""
    config = _dump(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "Env": [f"PATH={oci_image.DEFAULT_PATH}"],
                "Cmd": command,
                "Labels": {"made-for": mark} if mark else None,
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{_digest(layer.read_bytes())}" for layer in layers],
            },
            "history": [
                {"created": "2026-01-01T00:00:00Z", "created_by": layer.stem} for layer in layers
            ],
        }
    )
    name = f"{_digest(config)}.json"
    index = [{"Config": name, "RepoTags": list(tags), "Layers": [layer.name for layer in layers]}]
    _tar(
        path,
        [
            (name, config),
            *((layer.name, layer.read_bytes()) for layer in layers),
            ("manifest.json", _dump(index)),
        ],
    )
    return path


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
