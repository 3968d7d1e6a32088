"""Certificates for the TLS tests: one authority, and leaves that are good or wrong in one way."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, as files."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    #: certificate and key in one PEM file
    path: Path

    def server_context(self, *, clients_signed_by: Path | None = None) -> ssl.SSLContext:
        """Return the context of a server that shows this certificate, and may ask for the client's."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.path)
        if clients_signed_by is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_signed_by)
        return context


def issue(
    folder: Path,
    name: str,
    *,
    host: str = "127.0.0.1",
    issuer: Certificate | None = None,
    authority: bool = False,
    days: int = 2,
) -> Certificate:
    """Make a certificate for `host`, signed by `issuer` or by itself; negative `days` make one that has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if issuer is None else issuer.key
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host)]
    if host[0].isdigit():
        names = [x509.IPAddress(ipaddress.ip_address(host))]
    # signatures, then six uses of which an authority has two: signing certificates and lists of revoked ones
    usage = x509.KeyUsage(True, False, False, False, False, authority, authority, False, False)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    return Certificate(cert, key, path)
