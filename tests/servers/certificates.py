"""Certificates of an authority of the tests' own, as PEM files: for a server and for clients."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files; all but `stranger` belong together."""

    ca: Path
    """Whom clients and the server trust."""
    server: Path
    """For localhost and 127.0.0.1: the key, then the chain, in one file."""
    client: Path
    client_key: Path
    stranger: Path
    """Another authority, which signed none of these."""


def make_certificates(folder: Path, client: str = "client") -> Certificates:
    """Make them below `folder`, good for a day; `client` is the client's common name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "server", "client", "client-key", "stranger"))
    )
    authority, key = _authority("K2 test authority")
    made.ca.write_bytes(_pem(authority))
    made.stranger.write_bytes(_pem(_authority("A stranger")[0]))
    server, server_key = _signed("localhost", authority, key)
    # Java's PEM key stores want the key first, in PKCS #8, and then the chain.
    made.server.write_bytes(_private(server_key) + _pem(server) + _pem(authority))
    certificate, client_key = _signed(client, authority, key)
    made.client.write_bytes(_pem(certificate))
    made.client_key.write_bytes(_private(client_key))
    return made


def _authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    rule = x509.BasicConstraints(ca=True, path_length=None)
    draft = _draft(name, name, key).add_extension(rule, critical=True)
    return draft.sign(key, hashes.SHA256()), key


def _signed(
    name: str, authority: x509.Certificate, by: ec.EllipticCurvePrivateKey
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    addresses = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    draft = _draft(name, str(signer), key).add_extension(
        x509.SubjectAlternativeName(addresses), critical=False
    )
    return draft.sign(by, hashes.SHA256()), key


def _draft(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
