import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from labfleet_cli import authority
from labfleet_cli.authority import Authority, write_client
from labfleet_cli.tenancy import duration
from labfleet_proto.errors import InvalidRequestError


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    assert Authority(tmp_path).ca == Authority(tmp_path).ca


def test_keys_are_for_root_only(tmp_path: Path) -> None:
    made = Authority(tmp_path)
    made.ensure_server(["lab.example.org"])
    for name in ("ca-key.pem", "server-key.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_servers_certificate_is_made_anew_for_new_names_or_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Authority(tmp_path)
    assert made.ensure_server(["lab.example.org", "192.0.2.7"])
    assert not made.ensure_server(["192.0.2.7"])
    assert made.ensure_server(["other.example.org"])
    monkeypatch.setattr(authority, "_RENEW_BEFORE", timedelta(days=400))
    assert made.ensure_server(["other.example.org"])


def test_a_client_gets_what_docker_looks_for(tmp_path: Path) -> None:
    made = Authority(tmp_path / "ca")
    issued = made.client("alice", timedelta(days=2))
    write_client(tmp_path / "out", made.ca, issued)
    context = ssl.create_default_context(cafile=str(tmp_path / "out" / "ca.pem"))
    context.load_cert_chain(tmp_path / "out" / "cert.pem", tmp_path / "out" / "key.pem")
    certificate = x509.load_pem_x509_certificate((tmp_path / "out" / "cert.pem").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=alice"
    assert certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=2, minutes=1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0d", "1", "-1d", "1w", "1d2h", "9999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        duration(text)
