# Certificates for TLS on 127.0.0.1: an authority, and a server and a client that it vouches for.
from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def authority_and_client(directory: Path) -> tuple[bytes, bytes, bytes]:
    """The authority's certificate, the client's, and the client's key. `server.pem` and `server.key` lie beside them."""
    authority = certify(directory, "authority", None)
    issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]), authority)
    certify(directory, "server", issuer)
    certify(directory, "client", issuer)
    root, certificate, key = (directory / name for name in ("authority.pem", "client.pem", "client.key"))
    return root.read_bytes(), certificate.read_bytes(), key.read_bytes()


def certify(
    directory: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
) -> ec.EllipticCurvePrivateKey:
    """Write `name`.pem and `name`.key for 127.0.0.1; self-signed, as an authority, without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0] if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return key
