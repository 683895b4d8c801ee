"""The key of a group of machines: who has it may be its judge, or one of its agents.

One file with a private key and a certificate that it has signed itself. Both ends of a connection show that
they have it (TLS 1.3, certificates of both sides); nobody else's certificate is accepted.
"""

import datetime
import os
import ssl
from pathlib import Path
from typing import Final

from harness.errors import Code, InputError
from harness.files import PRIVATE_FILE

NAME: Final = "trainjudge agents"
DAYS: Final = 3650


def make_key(path: Path) -> None:
    """Write a new key, which only this user can read.

    Raises InputError: the file is there already, or cannot be made.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise InputError(
            Code.BAD_ARGUMENT, "to make a key, `pip install 'trainjudge[nodes]'`"
        ) from None
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise InputError(Code.BAD_ARGUMENT, f"cannot make {path}: {error.strerror}") from None
    with os.fdopen(file, "wb") as written:
        written.write(secret + certificate.public_bytes(pem))


def server_side(key: Path) -> ssl.SSLContext:
    """Of an agent. Raises InputError: the file is no such key, or others can read it."""
    return _context(key, ssl.PROTOCOL_TLS_SERVER)


def client_side(key: Path) -> ssl.SSLContext:
    """Of the judge. Raises InputError as `server_side`."""
    return _context(key, ssl.PROTOCOL_TLS_CLIENT)


def _context(key: Path, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name of a machine says nothing: the key does
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        mode = key.stat().st_mode
        context.load_cert_chain(key)
        context.load_verify_locations(key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            Code.BAD_ARGUMENT,
            f"{key} is no key of agents ({error.strerror or error}): "
            "`validator agent key FILE` makes one, and every machine gets a copy",
        ) from None
    if mode & 0o077:
        raise InputError(
            Code.BAD_ARGUMENT, f"other users can read {key}: `chmod 600 {key}`, or make a new one"
        )
    return context
