"""What a run's fills add up to."""

from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from engine.actors.takings import Takings
from engine.messages import Fill, OrderFill, Side
from engine.orders.estimated import brought_by
from engine.orders.rules import EXACT

AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=8)


def fill(side, price, size, fee="0", fee_asset="USDT", strategy="maker", pair="BTC-USDT"):
    execution = Fill(
        trade_id="1",
        price=Decimal(price),
        size=Decimal(size),
        fee=Decimal(fee),
        fee_asset=fee_asset,
        is_maker=True,
        time_ns=1,
    )
    return OrderFill(client_order_id="e-1", strategy=strategy, pair=pair, side=side, fill=execution)


def row(takings, strategy="maker", pair="BTC-USDT"):
    return next(row for row in takings.table() if (row["strategy"], row["pair"]) == (strategy, pair))


def test_nothing_was_traded():
    assert (Takings().fills, Takings().table()) == (0, [])


def test_buys_and_sells_of_one_pair():
    takings = Takings([fill(Side.BUY, "100", "2"), fill(Side.SELL, "110", "0.5")])
    assert takings.fills == 2
    assert (Decimal(row(takings)["base"]), Decimal(row(takings)["quote"])) == (Decimal("1.5"), Decimal(-145))


def test_each_strategy_and_pair_has_a_row_of_its_own():
    takings = Takings([fill(Side.BUY, "1", "1"), fill(Side.BUY, "1", "1", strategy="other")])
    other = fill(Side.SELL, "1", "1", pair="ETH-USDT")
    takings.add(other.strategy, other.pair, other.side, other.fill)
    assert {(row["strategy"], row["pair"], row["base"]) for row in takings.table()} == {
        ("maker", "BTC-USDT", "1"),
        ("other", "BTC-USDT", "1"),
        ("maker", "ETH-USDT", "-1"),
    }


def test_fees_are_kept_by_asset_and_nothing_is_no_fee():
    takings = Takings(
        [
            fill(Side.BUY, "1", "1", "0.1", "BNB"),
            fill(Side.BUY, "1", "1", "0.2", "BNB"),
            fill(Side.SELL, "1", "1", "0.05"),
            fill(Side.SELL, "1", "1", "0", "BTC"),
        ]
    )
    assert row(takings)["fees"] == {"BNB": "0.3", "USDT": "0.05"}


def test_a_rebate_counts_as_a_negative_fee():
    assert row(Takings([fill(Side.BUY, "1", "1", "-0.1")]))["fees"] == {"USDT": "-0.1"}


@given(st.lists(st.tuples(st.sampled_from(Side), AMOUNTS, AMOUNTS), min_size=1, max_size=20))
def test_sums_are_exact_in_any_order(trades):
    fills = [fill(*trade) for trade in trades]
    signed = [(1 if side is Side.BUY else -1, price, size) for side, price, size in trades]
    for order in (fills, fills[::-1]):
        found = row(Takings(order))
        assert Decimal(found["base"]) == sum(sign * size for sign, _, size in signed)
        with localcontext(EXACT):
            assert Decimal(found["quote"]) == -sum(sign * price * size for sign, price, size in signed)


def test_gains_are_cash_and_what_is_held_at_the_mid_less_fees():
    takings = Takings(
        [
            fill(Side.BUY, "100", "2", "0.01", "BTC"),
            fill(Side.SELL, "110", "1", "1"),
            fill(Side.BUY, "5", "1", "7", "BNB", pair="ETH-USDC"),
        ]
    )
    assert takings.gains({"BTC-USDT": Decimal(90), "ETH-USDC": Decimal(4)}) == {
        "USDT": -200 + 110 - 1 + Decimal("0.99") * 90,
        "USDC": -1,
    }


def test_without_a_mid_what_is_held_is_left_out_and_what_was_closed_is_not():
    """A loss that was realised is one before any book is there: right after a start, say."""
    closed = [fill(Side.BUY, "100", "2"), fill(Side.SELL, "90", "2", strategy="other")]
    assert Takings(closed).gains({}) == {"USDT": -20}
    assert Takings([*closed, fill(Side.BUY, "1", "1", pair="ETH-USDT")]).gains({"ETH-USDT": None}) == {"USDT": -20}
    assert Takings([*closed, fill(Side.BUY, "90", "0.1")]).gains({}) == {}
    assert Takings(closed).gains({"BTC-USDT": Decimal(1)}) == {"USDT": -20}


def test_a_fee_in_a_third_asset_counts_where_a_mid_leads_from_it():
    traded = [fill(Side.BUY, "100", "1", "0.02", "BNB"), fill(Side.SELL, "100", "1", "0.03", "BNB")]
    known = {"BNB-USDT": Decimal(600), "BTC-USDT": None}
    assert Takings(traded).gains(known) == {"USDT": -30}
    assert Takings(traded).gains({"BNB-BTC": Decimal("0.01"), "BTC-USDT": Decimal(60_000)}) == {"USDT": -30}
    assert Takings(traded).gains({"BNB-USDT": None}) == {"USDT": 0}
    rebate = [fill(Side.BUY, "100", "1", "-0.02", "BNB"), fill(Side.SELL, "100", "1")]
    assert Takings(rebate).gains(known) == {"USDT": 12}


EXECUTIONS = st.builds(
    fill,
    st.sampled_from([Side.BUY, Side.SELL]),
    AMOUNTS,
    AMOUNTS,
    AMOUNTS,
    st.sampled_from(["USDT", "BTC", "BNB"]),
    st.sampled_from(["maker", "other"]),
    st.sampled_from(["BTC-USDT", "ETH-BTC"]),
)


@given(st.lists(EXECUTIONS, max_size=8))
def test_what_all_brought_is_the_sum_of_what_each_did(fills):
    expected: dict[str, Decimal] = {}
    for each in fills:
        for asset, amount in brought_by(each).items():
            expected[asset] = EXACT.add(expected.get(asset, Decimal(0)), amount)
    found = Takings(fills).brought()
    assert {asset: amount for asset, amount in found.items() if amount} == {
        asset: amount for asset, amount in expected.items() if amount
    }
