"""Mutual TLS between the hosts of one engine: a certificate of its own, which both ends of a link must show.

It is made when the engine starts, trusted by this engine alone and by nothing but it, and never written anywhere
but to the run folders of the engine's hosts.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from engine.errors import ConfigError

FILE: Final = "identity.pem"
PEER_NAME: Final = "engine"
VALID_DAYS: Final = 3650
CLOCK_SPARE: Final = timedelta(days=1)


def make_identity() -> bytes:
    """A new key and its certificate as PEM. Raises ConfigError where the library that makes them is missing."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ConfigError(f"the cluster runtime needs {error.name}: pip install 'engine[cluster]'") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, PEER_NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SPARE)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(PEER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)


def write_identity(run_dir: Path, pem: bytes) -> Path:
    """Put the engine's identity where this host's actors read it; its owner's alone, and never without it if it was
    there before.
    """
    path, new = run_dir / FILE, run_dir / f".{FILE}.{os.getpid()}"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    new.replace(path)
    return path


def server_context(path: str | os.PathLike[str]) -> ssl.SSLContext:
    """For listening: a caller that does not show this engine's certificate gets nothing."""
    return _context(ssl.PROTOCOL_TLS_SERVER, path)


def client_context(path: str | os.PathLike[str]) -> ssl.SSLContext:
    """For connecting: a listener that does not show this engine's certificate is told nothing."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, path)


def _context(protocol: int, path: str | os.PathLike[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=path)
    context.load_cert_chain(path)
    return context
