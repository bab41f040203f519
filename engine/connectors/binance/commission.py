"""What an account pays at Binance: "Query Commission Rates" (``GET /api/v3/account/commission``, weight 20)."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from engine.messages import FeeSchema

WEIGHT = 20


class Rates(msgspec.Struct, rename="camel", frozen=True):
    """Fractions of an execution; ``buyer`` and ``seller`` come on top of ``maker`` and ``taker``."""

    maker: Decimal
    taker: Decimal
    buyer: Decimal = Decimal(0)
    seller: Decimal = Decimal(0)

    @property
    def side(self) -> Decimal:
        return max(self.buyer, self.seller)


class Discount(msgspec.Struct, rename="camel", frozen=True):
    """Standard commission is multiplied by ``discount`` when it is paid in ``discount_asset``."""

    enabled_for_account: bool = False
    enabled_for_symbol: bool = False
    discount_asset: str = ""
    discount: Decimal = Decimal(1)


_NONE = Rates(maker=Decimal(0), taker=Decimal(0))


class Commission(msgspec.Struct, rename="camel", frozen=True):
    """The reply, of one symbol."""

    standard_commission: Rates
    tax_commission: Rates = _NONE
    special_commission: Rates = _NONE
    discount: Discount = Discount()


def fee_schema(commission: Commission) -> FeeSchema:
    """The account's fees in a pair: all commissions together, the discount on the standard one alone."""
    standard, discount = commission.standard_commission, commission.discount
    discounted = discount.enabled_for_account and discount.enabled_for_symbol
    factor = discount.discount if discounted else Decimal(1)
    others = (commission.tax_commission, commission.special_commission)
    return FeeSchema(
        maker=(standard.maker + standard.side) * factor + sum((each.maker + each.side for each in others), Decimal(0)),
        taker=(standard.taker + standard.side) * factor + sum((each.taker + each.side for each in others), Decimal(0)),
        fee_asset=discount.discount_asset if discounted else "",
        buy_from_returns=True,
    )
