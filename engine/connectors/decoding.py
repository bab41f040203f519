"""Reading JSON that a venue sent: what may go wrong, and decimals that are amounts."""

from __future__ import annotations

from decimal import Decimal

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""Everything that a decoder raises for data that is not what it is for (the last one for absurdly deep
nesting).
"""

_MOST_DIGITS = 40


def require_amounts(*values: Decimal) -> None:
    """Raise ValueError for what decoders take for decimals and no price, size or fee can be.

    That is NaN, infinities, and numbers of more than 40 digits before or behind the point. In a type's
    ``__post_init__`` it becomes the decoder's own error.
    """
    for value in values:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -_MOST_DIGITS or max(exponent, value.adjusted()) > _MOST_DIGITS:
            raise ValueError(f"{value} is no amount")
