"""The fleet's own certificate authority: the api's certificate, and those of its clients."""

import hashlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from labfleet_chassis.durable_files import write_durably

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
"""The longest that clients accept of a server's certificate."""
_RENEW_BEFORE = timedelta(days=60)
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, as PEM."""

    certificate: bytes
    key: bytes
    fingerprint: str
    """Hex SHA-256 of the DER form."""
    expires_at: datetime


class Authority:
    """Signs with the key in `ca-key.pem` of a directory; made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (directory / "ca.pem").exists():
            self._make()
        self.ca = (directory / "ca.pem").read_bytes()
        self._certificate = x509.load_pem_x509_certificate(self.ca)
        key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory}/ca-key.pem is no key of ours")
        self._key = key

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Labfleet CA")])
        signed = (
            _builder(name, name, key, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_durably(
            self._dir / "ca-key.pem", _pem(key)
        )  # the certificate comes last: it says "made"
        write_durably(self._dir / "ca.pem", signed.public_bytes(serialization.Encoding.PEM))

    def ensure_server(self, names: Iterable[str]) -> bool:
        """Have a certificate for these names and addresses; False if it was there and stays."""
        wanted = sorted({*names, *_own_names()})
        path = self._dir / "server.pem"
        if path.exists():
            known = x509.load_pem_x509_certificate(path.read_bytes())
            is_fresh = known.not_valid_after_utc - _RENEW_BEFORE > datetime.now(UTC)
            if is_fresh and set(wanted) <= set(_names_in(known)):
                return False
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in wanted])
        issued = self._issue("Labfleet", SERVER_LIFE, ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
        write_durably(self._dir / "server-key.pem", issued.key)
        write_durably(path, issued.certificate)
        return True

    def client(self, tenant: str, life: timedelta) -> Issued:
        """Issue a certificate for a tenant; its name is for people, its fingerprint is what counts."""
        return self._issue(tenant, life, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self,
        name: str,
        life: timedelta,
        purpose: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Issued(
            signed.public_bytes(serialization.Encoding.PEM),
            _pem(key),
            hashlib.sha256(signed.public_bytes(serialization.Encoding.DER)).hexdigest(),
            signed.not_valid_after_utc,
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(own, critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _own_names() -> set[str]:
    return {"localhost", "127.0.0.1", "::1", socket.gethostname()}


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_in(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(each) for each in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def write_client(directory: Path, ca: bytes, issued: Issued) -> None:
    """Write `ca.pem`, `cert.pem`, `key.pem`, as `DOCKER_CERT_PATH` has them."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(directory / "ca.pem", ca)
    write_durably(directory / "key.pem", issued.key)
    write_durably(directory / "cert.pem", issued.certificate)
