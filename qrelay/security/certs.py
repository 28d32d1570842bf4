"""An authority of one's own, and certificates that it signs: for one machine, for tests, for a first cluster.

    ca.crt  ca.key                              ca.key signs: who has it can be anybody
    judge/tls.crt  judge/tls.key  judge/ca.crt  as a Kubernetes secret of type tls names them

A certificate names its owner as a URI, `spiffe://qrelay/service/judge` or `spiffe://qrelay/person/ana`, and the hosts
that it may answer as. Keys are for their owner's eyes alone.
"""

from __future__ import annotations

import getpass
import ipaddress
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qrelay.config import SECTIONS, Role, TlsSettings
from qrelay.errors import ConfigError, InputError
from qrelay.files import AtomicFiles
from qrelay.security.identity import MAX_NAME, TRUST, Kind
from qrelay.security.roles import SERVICES
from qrelay.security.tls import files_of
from qrelay.security.tokens import add, revoke

SERVICE: Final = f"{TRUST}{Kind.SERVICE}/"
PERSON: Final = f"{TRUST}{Kind.PERSON}/"
DAYS: Final = 365
"""Of a certificate."""
TOKENS: Final = "tokens.yaml"
KEY_TO_CONSOLE: Final = "console.token"
"""File of the person's token, for the console."""
_AUTHORITY: Final = "qrelay development authority"
_AUTHORITY_DAYS: Final = 3650
_LETTER: Final = "[A-Za-z0-9._-]"
"""Of a person's name in a certificate."""
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_EARLIER: Final = timedelta(minutes=5)
"""By which a certificate holds before now: clocks differ."""


class Authority(NamedTuple):
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def authority(folder: Path) -> Authority:
    """The folder's, made now where there is none. Raises ConfigError: its files do not hold; OSError."""
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        made = _made_authority()
        _write({key: _pem_key(made.key), certificate: _pem(made.certificate)})
        return made
    try:
        signs = serialization.load_pem_private_key(key.read_bytes(), None)
        if isinstance(signs, ec.EllipticCurvePrivateKey):
            return Authority(x509.load_pem_x509_certificate(certificate.read_bytes()), signs)
        raise ValueError("the key is of another kind")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{folder} holds no authority that signs (ca.crt, ca.key): {error}: give an empty folder"
        ) from error


def is_development(folder: Path) -> bool:
    """Whether the folder is one that `development` wrote: it holds such an authority, by its name, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITY)])
    try:
        found = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        return found.subject == name and (folder / "ca.key").is_file()
    except (OSError, ValueError):
        return False


def issue(
    folder: Path, signer: Authority, owner: str, hosts: Iterable[str] = (), *, days: float = DAYS
) -> TlsSettings:
    """A certificate, its key and the authority's certificate, written into the folder; files that are there are
    replaced. owner: a URI; hosts: names and addresses that it may answer as."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner.rpartition("/")[2][:64])])
    names = [x509.UniformResourceIdentifier(owner), *map(_host_name, dict.fromkeys(hosts))]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH] if len(names) > 1 else [
        ExtendedKeyUsageOID.CLIENT_AUTH]  # fmt: skip
    certificate = (
        _builder(name, signer.certificate.subject, key, signer.key, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    _write({
        folder / "tls.key": _pem_key(key),
        folder / "tls.crt": _pem(certificate),
        folder / "ca.crt": _pem(signer.certificate),
    })  # fmt: skip
    return files_of(folder)


def development(
    folder: Path, *, people: Sequence[str] = (), hosts: Sequence[str] = (), days: float = DAYS
) -> Sequence[str]:
    """Certificates of every service and of these people, signed by the folder's authority; their folders' names. Run
    again, all but the authority are new. Raises InputError: a person's name cannot be; ConfigError, OSError."""
    for name in people:
        _require_name(name)
    signer = authority(folder)
    for name in SERVICES:
        issue(folder / name, signer, SERVICE + name, (name, *_LOCAL, *hosts), days=days)
    for name in people:
        issue(folder / f"person-{name}", signer, PERSON + name, days=days)
    return (*SERVICES, *(f"person-{name}" for name in people))


def _require_name(name: str) -> None:
    """Raises InputError. A name is part of a URI, which takes ASCII, and of a folder's name."""
    if not re.fullmatch(f"{_LETTER}{{1,{MAX_NAME}}}", name):
        raise InputError(
            f"--person {name[:MAX_NAME]!r} cannot be in a certificate: give 1 to {MAX_NAME} of the letters a to z, "
            "A to Z, digits, . _ and -"
        )


def user() -> str:
    """Who runs this process, for a certificate: what cannot be in one is replaced by -."""
    try:
        return re.sub(f"(?!{_LETTER}).", "-", getpass.getuser(), flags=re.DOTALL)[:MAX_NAME] or "local"
    except (KeyError, OSError):
        return "local"


def variables(folder: Path, person: str) -> Mapping[str, str]:
    """The environment of an installation with these certificates: a service's own for each, the person's for
    commands."""
    owners = {section: folder / section for section in SECTIONS if section != "all"}
    owners["all"] = folder / f"person-{person}"
    return {
        f"QRELAY_{section.upper()}__TLS__{field.upper()}": str(path)
        for section, owner in owners.items()
        for field, path in files_of(owner).model_dump(exclude_defaults=True).items()
    }


def access(folder: Path, person: str) -> Mapping[str, str]:
    """The environment in which this person has every role: by certificate, and in the console by the token in the
    folder's file `console.token`, which is new each time."""
    tokens, roles = folder / TOKENS, tuple(Role)
    with suppress(ConfigError, InputError):  # there was none
        revoke(tokens, person)
    token, _ = add(tokens, person, roles, DAYS)
    _write({folder / KEY_TO_CONSOLE: f"{token}\n".encode()})
    grants = json.dumps({person: roles})
    return {"QRELAY_ALL__ACCESS__TOKENS": str(tokens), "QRELAY_ALL__ACCESS__GRANTS": grants}


def _made_authority() -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITY)])
    return Authority(
        _builder(name, name, key, key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .sign(key, hashes.SHA384()),
        key,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    days: float,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(),
        min(now - _EARLIER, now + timedelta(days=days) - _EARLIER), now + timedelta(days=days),
    )  # fmt: skip
    return builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"{host!r} is no host's name: write it in ASCII") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(contents: Mapping[Path, bytes]) -> None:
    with AtomicFiles() as files:
        for path, data in contents.items():
            file = files.open(path)
            if path.suffix == ".key" or path.name == KEY_TO_CONSOLE:
                os.fchmod(file.fileno(), 0o600)
            file.write(data)
        files.commit()
