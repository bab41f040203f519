"""Certificates: the system's, or one file's."""

from __future__ import annotations

import ssl

from engine.errors import ConfigError


def client_context(ca: str | None = None) -> ssl.SSLContext:
    """A context that verifies the server. ``ca``: a file of certificates to trust instead of the system's.

    ConfigError if the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"option 'ca': {ca!r} holds no certificates that can be read: {error}") from error
