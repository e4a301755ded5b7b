"""Keys of image bundles: the pair with which a fleet signs, and the public keys of fleets that it believes."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from labfleet_chassis.durable_files import write_durably
from labfleet_cli.machine import MachineError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MOST_BYTES = 16 << 10
_CONTEXT = b"labfleet image bundle 1\n"
"""Before what is signed, so that a signature is good for nothing else."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key, under the name that an operator gave it."""

    name: str
    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the raw key."""
        return hashlib.sha256(self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()

    @property
    def pem(self) -> bytes:
        """As it is given to others."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def has_signed(self, signature: bytes, data: bytes) -> bool:
        """Whether this key made the signature over these bytes."""
        try:
            self.key.verify(signature, _CONTEXT + data)
        except InvalidSignature:
            return False
        return True


class BundleKeys:
    """Keys in a directory of the fleet that only root reads."""

    OWN = "this fleet"

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._own = directory / "sign-key.pem"
        self._trusted = directory / "trusted"
        self._trusted.mkdir(parents=True, exist_ok=True, mode=0o700)

    def own(self) -> TrustedKey:
        """The fleet's public key; the pair is made when it is first needed."""
        return TrustedKey(self.OWN, self._pair().public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign with the fleet's key."""
        return self._pair().sign(_CONTEXT + data)

    def _pair(self) -> Ed25519PrivateKey:
        if not self._own.exists():
            pair = Ed25519PrivateKey.generate()
            write_durably(
                self._own, pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        key = load_pem_private_key(self._own.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise MachineError(f"{self._own} is no ed25519 key")
        return key

    def believed(self) -> list[TrustedKey]:
        """The fleet's own key and those that were added, by name."""
        added = sorted(self._trusted.glob("*.pem"))
        return [self.own(), *(_read(path, path.stem) for path in added)]

    def add(self, file: Path, name: str) -> TrustedKey:
        """Believe a public key from now on; again it changes nothing. Raises MachineError."""
        name = name or re.sub(r"[^a-z0-9_.-]", "-", file.stem.lower())
        if _NAME.fullmatch(name) is None:
            raise MachineError(f"{name!r} is no name for a key: lower-case letters, digits, `.-_`")
        key = _read(file, name)
        there = self._trusted / f"{name}.pem"
        if there.exists() and _read(there, name).fingerprint != key.fingerprint:
            raise MachineError(f"another key is called {name}: `labfleet image trust rm {name}`")
        write_durably(there, key.pem)
        return key

    def remove(self, name: str) -> None:
        """Believe a key no more. Raises MachineError."""
        path = self._trusted / f"{name}.pem"
        if _NAME.fullmatch(name) is None or not path.exists():
            raise MachineError(f"there is no trusted key {name}")
        path.unlink()


def _read(path: Path, name: str) -> TrustedKey:
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(_MOST_BYTES))
    except OSError as exc:
        raise MachineError(f"{path}: {exc.strerror}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MachineError(f"{path} is no public key in PEM") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise MachineError(f"{path} is no ed25519 key")
    return TrustedKey(name, key)
