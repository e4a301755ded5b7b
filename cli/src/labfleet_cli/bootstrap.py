"""Base images from what this machine has: no registry of others is asked."""

import io
import os
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from labfleet_cli.oci_image import ImagePlan, Progress, push

Distribution = Literal["busybox", "debian"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("busybox", "debian")

_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_ACCOUNTS = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
_GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
wheel:x:10:root
audio:x:29:
www-data:x:33:
operator:x:37:
video:x:44:
staff:x:50:
users:x:100:
nogroup:x:65534:
"""
"""The accounts of Docker Hub's busybox: programs and tests name them."""
_NSSWITCH = "hosts: files dns\n"
_MMDEBSTRAP_LIMIT_S = 900


class BootstrapError(Exception):
    """The image cannot be built here; the message says what is missing."""


def bootstrap(name: Distribution, registry_url: str, on_progress: Progress) -> str:
    """Build an image and push it; return its id. Built again from the same packages it is the same.

    Raises BootstrapError, httpx.HTTPError.
    """
    with tempfile.TemporaryDirectory(prefix="labfleet-bootstrap-") as scratch:
        tar = Path(scratch) / "layer.tar"
        plan = _busybox(tar) if name == "busybox" else _debian(tar, on_progress)
        return push(plan, tar, registry_url, on_progress)


def _busybox(tar: Path) -> ImagePlan:
    """The static busybox of Debian with a link for each applet."""
    binary = next((path for path in _BUSYBOX if path.exists()), None)
    if binary is None:
        raise BootstrapError("busybox is not installed: apt-get install busybox-static")
    applets = subprocess.run(  # noqa: TID251 - a program of its own, not a service
        [binary, "--list-full"], capture_output=True, text=True, check=True
    ).stdout.split()
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        folders = {"bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "root", "home", "var", "tmp"}
        folders |= {"dev", "proc", "sys", "run", "mnt", "var/tmp", "var/www"}
        for folder in sorted(folders):
            mode = 0o1777 if folder in ("tmp", "var/tmp") else 0o700 if folder == "root" else 0o755
            _add(archive, folder, tarfile.DIRTYPE, mode=mode)
        _add(archive, "bin/busybox", tarfile.REGTYPE, mode=0o755, data=binary.read_bytes())
        for applet in sorted(set(applets) - {"bin/busybox", "linuxrc"}):
            if applet.rpartition("/")[0] in folders:
                _add(archive, applet, tarfile.SYMTYPE, link="/bin/busybox")
        for path, text in (
            ("etc/passwd", _ACCOUNTS),
            ("etc/group", _GROUP),
            ("etc/nsswitch.conf", _NSSWITCH),
        ):
            _add(archive, path, tarfile.REGTYPE, mode=0o644, data=text.encode())
    return ImagePlan(
        "busybox", ("latest",), ("sh",), _stamp(binary.stat().st_mtime), "busybox-static"
    )


def _add(
    archive: tarfile.TarFile,
    name: str,
    kind: bytes,
    *,
    mode: int = 0o777,
    data: bytes = b"",
    link: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
    archive.addfile(member, io.BytesIO(data) if kind == tarfile.REGTYPE else None)


def _debian(tar: Path, on_progress: Progress) -> ImagePlan:
    """A minimal Debian of this machine's own release, from the mirror that this machine uses."""
    release = _os_release()
    suite = release.get("VERSION_CODENAME")
    if release.get("ID") != "debian" or not suite:
        raise BootstrapError("this machine is not a Debian: its mirror and release are not known")
    on_progress(f"mmdebstrap {suite}: about a minute")
    env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}  # noqa: TID251 - handed on to apt unchanged
    command = ["mmdebstrap", "--variant=essential", "--include=apt", "--mode=root", suite, str(tar)]
    command[1:1] = [
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--skip=output/dev",  # a container's /dev is made by its runtime
    ]
    try:
        subprocess.run(  # noqa: TID251 - a program of its own, not a service
            command,
            check=True,
            capture_output=True,
            text=True,
            env=env,
            timeout=_MMDEBSTRAP_LIMIT_S,
        )
    except FileNotFoundError as exc:
        raise BootstrapError("mmdebstrap is not installed: apt-get install mmdebstrap") from exc
    except subprocess.CalledProcessError as exc:
        raise BootstrapError(f"mmdebstrap failed: {exc.stderr.strip()[-800:]}") from exc
    return ImagePlan("debian", ("latest", suite), ("bash",), _today(), f"mmdebstrap {suite}")


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _today() -> str:
    """The day, so that an image made twice a day from the same packages is the same."""
    return datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")


def _os_release() -> dict[str, str]:
    pairs = (
        line.partition("=") for line in Path("/etc/os-release").read_text().splitlines() if line
    )
    return {key: value.strip('"') for key, _, value in pairs}
