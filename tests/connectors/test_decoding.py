from __future__ import annotations

from decimal import Decimal

import pytest

from engine.connectors.decoding import require_amounts


@pytest.mark.parametrize("text", ["0", "0.00000000", "-1.5", "1E+3", "123456789012345678901234567890.12345678"])
def test_amounts(text: str) -> None:
    require_amounts(Decimal(text))


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity", "1e41", "1e-41", "0e999999", "0e-999999"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        require_amounts(Decimal(1), Decimal(text))
