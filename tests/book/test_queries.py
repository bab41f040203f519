"""What a taker would get: of a book, of a shared one, and of the plain twin alike."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import BookReader, BookWriter, OrderBook, ReadStatus, SyncState
from engine.book.reference import ReferenceBook
from engine.errors import BookError
from engine.messages import Side

BIDS = [("100.50", "1.5"), ("100.40", "2"), ("100.10", "3")]
ASKS = [("100.60", "0.5"), ("100.70", "4"), ("101", "5")]
D = Decimal


@pytest.fixture
def book() -> OrderBook:
    book = OrderBook("ETH-USDT", -2, -3)
    book.apply_snapshot(BIDS, ASKS)
    return book


def test_mid_and_spread_are_exact_and_none_of_an_empty_side(book: OrderBook) -> None:
    assert (book.mid(), book.spread()) == (D("100.55"), D("0.10"))
    book.apply_diff([("100.51", "1")], [])
    assert (book.mid(), book.spread()) == (D("100.555"), D("0.09"))
    assert OrderBook("A-B", 0, 0).mid() is OrderBook("A-B", 0, 0).spread() is None


def test_a_fill_takes_the_best_levels_first(book: OrderBook) -> None:
    bought = book.fill(Side.BUY, D(3))
    assert (bought.size, bought.cost, bought.worst, bought.levels) == (3, D("302.05"), D("100.70"), 2)
    assert (bought.complete, bought.fresh, bought.status) == (True, True, ReadStatus.FRESH)
    assert bought.vwap == D("302.05") / 3
    sold = book.fill(Side.SELL, D("1.5"))
    assert (sold.cost, sold.worst, sold.levels, sold.complete) == (D("150.75"), D("100.50"), 1, True)


def test_a_fill_of_more_than_there_is_is_all_of_it_and_not_complete(book: OrderBook) -> None:
    bought = book.fill(Side.BUY, D(100))
    assert (bought.size, bought.complete, bought.worst) == (D("9.5"), False, 101)
    nothing = OrderBook("A-B", 0, 0).fill(Side.SELL, D(1))
    assert (nothing.size, nothing.cost, nothing.worst, nothing.vwap, nothing.complete) == (0, 0, None, None, False)


def test_a_size_finer_than_the_books_own_is_exact(book: OrderBook) -> None:
    bought = book.fill(Side.BUY, D("0.50000001"))
    assert (bought.size, bought.cost) == (D("0.50000001"), D("50.3") + D("0.00000001") * D("100.70"))


def test_a_quote_amount_buys_whole_steps(book: OrderBook) -> None:
    bought = book.fill_quote(Side.BUY, D(100))
    assert (bought.size, bought.cost) == (D("0.993"), D("50.30") + D("0.493") * D("100.70"))
    assert (bought.complete, bought.worst) == (True, D("100.70"))
    exactly = book.fill_quote(Side.BUY, D("50.30"))
    assert (exactly.size, exactly.levels, exactly.complete) == (D("0.5"), 1, True)
    too_little = book.fill_quote(Side.SELL, D("0.00001"))
    assert (too_little.size, too_little.worst, too_little.complete) == (0, None, True)
    assert not book.fill_quote(Side.SELL, D(10_000)).complete


def test_volume_counts_base_and_quote_up_to_a_price(book: OrderBook) -> None:
    found = book.volume(Side.BUY, D("100.70"))
    assert (found.base, found.quote, found.levels) == (D("4.5"), D("453.10"), 2)
    assert book.volume(Side.BUY, D("100.69999")).levels == 1
    assert book.volume(Side.SELL, D("100.4000001")).base == D("1.5")
    assert book.volume(Side.SELL, D("100.4")).quote == D("351.55")
    assert book.volume(Side.BUY, D(1)).vwap is None


@pytest.mark.parametrize("amount", [D(0), D(-1), D("NaN"), D("Infinity")])
def test_what_cannot_be_taken_is_refused(book: OrderBook, amount: Decimal) -> None:
    for ask in (book.fill, book.fill_quote):
        with pytest.raises(BookError, match="ETH-USDT"):
            ask(Side.BUY, amount)


def test_floats_and_what_is_no_side_are_refused(book: OrderBook) -> None:
    with pytest.raises(TypeError):
        book.fill(Side.BUY, 1.5)  # type: ignore[arg-type]  # the very point
    with pytest.raises(TypeError):
        book.volume(Side.BUY, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Side"):
        book.fill("buy", D(1))  # type: ignore[arg-type]
    with pytest.raises(BookError, match="price"):
        book.volume(Side.SELL, D("NaN"))


def test_sums_beyond_128_bits_are_exact() -> None:
    book = OrderBook("A-B", 0, 0)
    most = 2**63 - 1
    book.apply_snapshot([], [(str(most - 10 + n), str(most)) for n in range(10)])
    bought = book.fill(Side.BUY, D(most * 10))
    assert bought.complete
    assert int(bought.cost) == sum((most - 10 + n) * most for n in range(10))
    assert book.volume(Side.BUY, D(most)).quote == bought.cost


# ------------------------------------------------------------------------------------------------------------ shared


@pytest.fixture
def shared(shared_folder: Path, book: OrderBook) -> BookReader:
    writer = BookWriter(shared_folder / "a.book", "ETH-USDT", -2, -3, depth=2)
    writer.publish(book, 1, 0, 1_000, SyncState.SYNCED)
    return BookReader(shared_folder / "a.book")


def test_a_shared_book_answers_as_the_book_does(shared: BookReader, book: OrderBook) -> None:
    assert shared.fill(Side.BUY, D("4.5"), 1_000) == book.fill(Side.BUY, D("4.5"))
    assert shared.fill_quote(Side.SELL, D(200), 1_000) == book.fill_quote(Side.SELL, D(200))
    assert shared.volume(Side.SELL, D("100.40"), 1_000) == book.volume(Side.SELL, D("100.40"))


@pytest.mark.parametrize(
    ("name", "side", "argument"),
    [
        ("fill", Side.BUY, "4.501"),
        ("fill", Side.SELL, "3.6"),
        ("fill_quote", Side.BUY, "454"),
        ("volume", Side.BUY, "100.71"),
        ("volume", Side.SELL, "100.39"),
    ],
)
def test_what_needs_more_levels_than_are_published_says_so(
    shared: BookReader, name: str, side: Side, argument: str
) -> None:
    with pytest.raises(BookError, match=r"ETH-USDT.*more than the 2 levels.*books\.depth"):
        getattr(shared, name)(side, D(argument), 1_000)


def test_every_answer_says_how_far_it_can_be_trusted(shared: BookReader, shared_folder: Path) -> None:
    stale = shared.fill(Side.BUY, D(1), 10**12)
    assert (stale.status, stale.fresh, stale.size) == (ReadStatus.STALE, False, 1)
    missing = BookReader(shared_folder / "none.book")
    assert missing.fill(Side.BUY, D(1)).status is missing.volume(Side.SELL, D(1)).status is ReadStatus.MISSING
    assert not missing.fill_quote(Side.BUY, D(1)).complete
    with pytest.raises(TypeError, match="Side"):
        shared.fill("sell", D(1))  # type: ignore[arg-type]  # the very point


# ---------------------------------------------------------------------------------------------------------- property

prices = st.decimals(min_value=D("0.001"), max_value=D("99999.999"), places=3)
sizes = st.decimals(min_value=D("0.00001"), max_value=D(10**9), places=5)
levels = st.lists(st.tuples(prices.map(str), sizes.map(str)), max_size=12)
amounts = st.decimals(min_value=D("0.0000001"), max_value=D(10**12), places=7)


@settings(max_examples=300, deadline=None)
@given(bids=levels, asks=levels, size=amounts, quote=amounts, price=prices, side=st.sampled_from(Side))
def test_the_fast_book_and_the_plain_one_answer_alike(
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
    size: Decimal,
    quote: Decimal,
    price: Decimal,
    side: Side,
) -> None:
    fast, plain = OrderBook("A-B", -3, -5), ReferenceBook("A-B", -3, -5)
    for book in (fast, plain):
        book.apply_snapshot(bids, asks)
    assert (fast.mid(), fast.spread()) == (plain.mid(), plain.spread())
    assert fast.fill(side, size) == plain.fill(side, size)
    assert fast.fill_quote(side, quote) == plain.fill_quote(side, quote)
    assert fast.volume(side, price) == plain.volume(side, price)
    filled = fast.fill(side, size)
    assert filled.complete == (filled.size == size)
    if filled.worst is not None:
        assert fast.volume(side, filled.worst).base >= filled.size


@settings(max_examples=60, deadline=None)
@given(asks=levels, size=amounts, quote=amounts, price=prices, depth=st.integers(1, 5))
def test_a_shared_book_answers_the_same_or_says_that_it_cannot(
    tmp_path_factory: pytest.TempPathFactory,
    asks: list[tuple[str, str]],
    size: Decimal,
    quote: Decimal,
    price: Decimal,
    depth: int,
) -> None:
    path = tmp_path_factory.mktemp("book") / "a.book"
    book = OrderBook("A-B", -3, -5)
    book.apply_snapshot([], asks)
    writer, reader = BookWriter(path, "A-B", -3, -5, depth=depth), BookReader(path)
    writer.publish(book, 1, 0, 1_000, SyncState.SYNCED)
    for name, argument in (("fill", size), ("fill_quote", quote), ("volume", price)):
        whole = getattr(book, name)(Side.BUY, argument)
        try:
            assert getattr(reader, name)(Side.BUY, argument, 1_000) == whole
        except BookError:
            assert book.ask_count > depth
            assert whole.levels >= depth
    writer.close()


def test_a_wide_book_answers_exactly_too(shared_folder: Path) -> None:
    """A token of which there are 10**15, at 8 decimals."""
    book = OrderBook("PEPE-USDT", -12, -8)
    plain = ReferenceBook("PEPE-USDT", -12, -8)
    bids = [("0.000010000001", "999999999999999.12345678"), ("0.000010000000", "0.00000001")]
    asks = [("0.000010000002", "0.00000003"), ("0.000010000003", "123456789012345.00000001"), ("0.00002", "5")]
    for each in (book, plain):
        each.apply_snapshot(bids, asks)
    writer = BookWriter(shared_folder / "w.book", "PEPE-USDT", -12, -8, depth=3)
    writer.publish(book, 1, 0, 1_000, SyncState.SYNCED)
    reader = BookReader(shared_folder / "w.book")
    for side in Side:
        for size in ("0.00000002", "100000000000000.00000007", "1e16"):
            expected = plain.fill(side, D(size))
            assert book.fill(side, D(size)) == reader.fill(side, D(size), 1_000) == expected
            quote = expected.cost + D("0.000001")
            assert (
                book.fill_quote(side, quote) == reader.fill_quote(side, quote, 1_000) == plain.fill_quote(side, quote)
            )
        for price in ("0.00001", "0.000010000001", "0.00003"):
            expected_volume = plain.volume(side, D(price))
            assert book.volume(side, D(price)) == reader.volume(side, D(price), 1_000) == expected_volume
    writer.close()
