"""An authority and certificates for tests, in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SERVICE = "spiffe://qrelay/service/"
PERSON = "spiffe://qrelay/person/"


@cache
def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("test authority", key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return key, builder.sign(key, hashes.SHA256())


def _builder(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(_ISSUER).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    return builder.not_valid_after(now + timedelta(hours=1))


_ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])


@cache
def certificate(name: str, *uris: str, hosts: tuple[str, ...] = ()) -> tuple[bytes, bytes, bytes]:
    """(authority, key, certificate) as PEM; of loopback, with these URIs."""
    authority_key, authority = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(each) for each in uris]
    names += [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))] if uris or name == "server" else []
    names += map(x509.DNSName, hosts)
    builder = _builder(name, key.public_key())
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    found = builder.sign(authority_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return authority.public_bytes(pem), secret, found.public_bytes(pem)


def server_credentials() -> grpc.ServerCredentials:
    """Of a server that asks for a certificate."""
    authority, key, shown = certificate("server")
    return grpc.ssl_server_credentials([(key, shown)], authority, require_client_auth=True)


def client_credentials(name: str, *uris: str, hosts: tuple[str, ...] = ()) -> grpc.ChannelCredentials:
    authority, key, shown = certificate(name, *uris, hosts=hosts)
    return grpc.ssl_channel_credentials(authority, key, shown)
