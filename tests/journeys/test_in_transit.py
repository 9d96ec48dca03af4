"""Promise *in-transit*: every connection that carries personal data is TLS, or a local socket."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.clinic import installed_clinic
from support.installation import Installation

pytestmark = [pytest.mark.journey, pytest.mark.postgres]

HOST = "db.clinic.invalid"
# A loopback address of this process's own: the port stays PostgreSQL's and disturbs nobody.
ADDRESS = f"127.{77 + os.getpid() // 62500}.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"


@dataclass
class Served:
    """A vendor's server that speaks TLS on a loopback address."""

    installation: Installation
    certificate: Path

    def use(self, *parameters: str) -> None:
        """Let the settings name the database by TCP, with further parameters of the URL."""
        url = "&".join([f"postgresql://obhut@/clinic?host={HOST}", f"hostaddr={ADDRESS}", *parameters])
        file = self.installation.folder / "obhut.toml"
        lines = [f'url = "{url}"' if line.startswith("url = ") else line for line in file.read_text(encoding="utf-8").splitlines()]
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")

    def rules(self, *lines: str) -> None:
        """Replace the rules for connections over TCP."""
        path = self.installation.cluster.data / "pg_hba.conf"
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("host")]
        path.write_text("\n".join([*kept, *lines, ""]), encoding="utf-8")
        self.installation.cluster.reload()
        time.sleep(0.5)  # the postmaster reads it in a moment

    def verdict(self) -> dict[str, Any]:
        """Return the verdict on the promise; the exit status says the same."""
        result = self.installation.obhut.run("promises", "in-transit")
        found = result.document["promises"][0]
        assert result.status == (5 if found["state"] == "broken" else 0), str(result)
        return dict(found)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Give Debian's PostgreSQL 15 with a certificate; the wheel's server knows no TLS."""
    with installed_clinic(major=15) as installation:
        data = installation.cluster.data
        certificate = installation.folder / "root.crt"
        _certify(certificate, data / "server.crt", data / "server.key")
        if installation.cluster.user:
            for name in ("server.crt", "server.key"):
                shutil.chown(data / name, installation.cluster.user.uid, installation.cluster.user.gid)
        installation.cluster.stop()
        installation.cluster.configure({"ssl": True, "listen_addresses": ADDRESS})
        installation.cluster.start()
        yield Served(installation, certificate)


def _certify(root: Path, certificate: Path, key_file: Path) -> None:
    """Write a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    for path in (root, certificate):
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    key_file.chmod(0o600)


def test_verified_tls_keeps_the_promise(served: Served) -> None:
    """Obhut connects by TLS, verifies the server's name, and the server lets nobody in without: kept. It works over that connection, too."""
    served.rules("hostssl all all 127.0.0.0/8 trust", "hostssl all all 10.0.0.0/8 scram-sha-256")
    served.use("sslmode=verify-full", f"sslrootcert={served.certificate}")
    verdict = served.verdict()
    assert verdict["state"] == "kept", verdict
    assert any("TLS and local connections only" in item["fact"] for item in verdict["evidence"])
    assert served.installation.erase("patient", 7)["verified"] is True


def test_a_rule_that_lets_plain_tcp_in_breaks_it(served: Served) -> None:
    """Nobody needs to use the open door: that it is there breaks the promise."""
    served.rules("hostssl all all 127.0.0.0/8 trust", "host all all 10.0.0.0/8 scram-sha-256")
    served.use("sslmode=verify-full", f"sslrootcert={served.certificate}")
    verdict = served.verdict()
    assert verdict["state"] == "broken"
    assert any("plain TCP" in item["fact"] and item["state"] == "broken" for item in verdict["evidence"])


@pytest.mark.parametrize("mode", ["sslmode=require", "sslmode=prefer", "sslmode=disable", "application_name=x"])
def test_a_connection_that_does_not_verify_the_server_breaks_it(served: Served, mode: str) -> None:
    """TLS to a server that may be anybody is not enough; neither is the default of libpq."""
    served.rules("host all all 127.0.0.1/32 trust")
    served.use(mode)
    verdict = served.verdict()
    assert verdict["state"] == "broken"
    assert any("does not verify" in item["fact"] for item in verdict["evidence"])


def test_a_server_with_another_name_is_refused(served: Served) -> None:
    """The certificate is of another host: no command talks to it, and the promise is not kept."""
    served.rules("hostssl all all 127.0.0.0/8 trust")
    served.use("sslmode=verify-full", f"sslrootcert={served.certificate}")
    file = served.installation.folder / "obhut.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(f"host={HOST}", "host=other.clinic.invalid"), encoding="utf-8")
    served.installation.obhut.refused("erase", "clinic", "patient", "9", status=1)
    result = served.installation.obhut.run("promises", "in-transit")
    assert result.document["promises"][0]["state"] != "kept"


def test_a_local_socket_is_enough() -> None:
    """A server that listens on no address keeps the promise."""
    with installed_clinic(registered=False) as installation:
        verdict = installation.obhut("promises", "in-transit")["promises"][0]
        assert verdict["state"] == "kept", verdict
        assert any("no address" in item["fact"] for item in verdict["evidence"])
