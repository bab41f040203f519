from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.book import exponent_of, format_mantissa
from engine.errors import BookError


@pytest.mark.parametrize(
    ("increment", "exponent"),
    [
        ("0.01", -2),
        ("0.05", -2),
        ("1", 0),
        ("1.000", 0),
        ("100", 2),
        ("2.5", -1),
        ("1e-8", -8),
        ("0.00000100", -6),
    ],
)
def test_exponent_of_an_increment_holds_its_multiples_and_no_finer(increment: str, exponent: int) -> None:
    assert exponent_of(Decimal(increment)) == exponent


@pytest.mark.parametrize("increment", ["0", "-0.01", "NaN", "Infinity", "1e-31", "1e19"])
def test_an_increment_without_an_exponent_is_refused_by_name(increment: str) -> None:
    with pytest.raises(BookError, match=str(Decimal(increment)).replace("+", r"\+")):
        exponent_of(Decimal(increment))


@pytest.mark.parametrize(
    ("mantissa", "exponent", "text"),
    [
        (0, -2, "0.00"),
        (5, -2, "0.05"),
        (-5, -2, "-0.05"),
        (12345, -2, "123.45"),
        (12, 3, "12000"),
        (0, 3, "0"),
        (2**63 - 1, 0, "9223372036854775807"),
        (1, -30, "0.000000000000000000000000000001"),
    ],
)
def test_formats_plainly_with_the_exponents_places(mantissa: int, exponent: int, text: str) -> None:
    assert format_mantissa(mantissa, exponent) == text


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-30, 18))
def test_formatting_is_exact(mantissa: int, exponent: int) -> None:
    text = format_mantissa(mantissa, exponent)
    assert Decimal(text) == Decimal(f"{mantissa}e{exponent}")
    assert "e" not in text.lower()


def test_formatting_out_of_range_is_refused() -> None:
    with pytest.raises(BookError, match="-31"):
        format_mantissa(1, -31)
