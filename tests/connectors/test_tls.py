from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from engine.connectors.tls import client_context
from engine.errors import ConfigError


def test_servers_are_verified() -> None:
    context = client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_file_that_holds_no_certificates_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="option 'ca'"):
            client_context(str(path))
