"""Checks a server's TLS files before anything starts, as the front will load them."""

import ssl
from pathlib import Path

from nemotrt.errors import ConfigError


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raise ConfigError unless both files are given, or neither, and they belong together."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise ConfigError("TLS needs both --tls-certificate and --tls-key.")
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}.") from error
    is_encrypted = False

    def password() -> str:  # without it OpenSSL asks the terminal
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if is_encrypted:
            why = f"the key in {key} is encrypted, and nobody is there to type its password"
        elif getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            why = f"the key in {key} is not that of the certificate in {certificate}"
        else:
            why = f"{certificate} and {key} are no certificate and key in PEM: {error}"
        raise ConfigError(f"TLS can't start: {why}.") from error
