import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.book import OrderBook
from engine.book.reference import ReferenceBook
from engine.errors import BookError

BIDS = [("100.50", "1.5"), ("100.40", "2"), ("100.10", "3")]
ASKS = [("100.60", "0.5"), ("100.70", "4"), ("101", "5")]


def cell_bytes(*values: int) -> bytes:
    """Prices and sizes in turn, as a message of levels carries them."""
    return np.array(values, "<i8").tobytes()


@pytest.fixture
def book() -> OrderBook:
    book = OrderBook("ETH-USDT", -2, -3)
    book.apply_snapshot(BIDS, ASKS)
    return book


def test_a_new_book_is_empty_and_valid() -> None:
    book = OrderBook("ETH-USDT", -2, -3)
    assert (book.best_bid(), book.best_ask()) == (None, None)
    assert book.best_raw() == (0, 0, 0, 0)
    assert (book.bid_count, book.ask_count, book.is_crossed, book.is_valid) == (0, 0, False, True)
    assert book.depth() == ([], [])


def test_exponents_out_of_range_are_refused() -> None:
    with pytest.raises(BookError, match=r"ETH-USDT.*-31"):
        OrderBook("ETH-USDT", -31, 0)


def test_best_levels_of_a_snapshot(book: OrderBook) -> None:
    assert book.best_bid() == (Decimal("100.50"), Decimal("1.5"))
    assert book.best_ask() == (Decimal("100.60"), Decimal("0.5"))
    assert book.best_raw() == (10050, 1500, 10060, 500)


def test_depth_is_best_first_and_bounded(book: OrderBook) -> None:
    assert book.depth_strings(2) == (
        [("100.50", "1.500"), ("100.40", "2.000")],
        [("100.60", "0.500"), ("100.70", "4.000")],
    )
    assert [price for price, _ in book.depth()[1]] == [Decimal("100.60"), Decimal("100.70"), Decimal("101")]
    assert book.depth(0) == ([], [])
    with pytest.raises(BookError, match="-1 levels"):
        book.depth(-1)


def test_numpy_holds_the_mantissas_best_first(book: OrderBook) -> None:
    bids, asks, price_exponent, size_exponent = book.to_numpy(2)
    assert bids.dtype == np.int64
    assert bids.tolist() == [[10050, 1500], [10040, 2000]]
    assert asks.tolist() == [[10060, 500], [10070, 4000]]
    assert (price_exponent, size_exponent) == (-2, -3)
    assert OrderBook("A-B", 0, 0).to_numpy()[0].shape == (0, 2)


def test_a_diff_sets_inserts_and_removes(book: OrderBook) -> None:
    book.apply_diff([("100.50", "0"), ("100.45", "7"), ("100.40", "9")], [("100.60", "0.00000000")])
    assert book.depth_strings() == (
        [("100.45", "7.000"), ("100.40", "9.000"), ("100.10", "3.000")],
        [("100.70", "4.000"), ("101.00", "5.000")],
    )


def test_removing_an_absent_level_changes_nothing(book: OrderBook) -> None:
    before = book.depth_strings()
    book.apply_diff([("99", "0"), ("1e30", "0"), ("100.505", "0")], [("100.6000001", "0")])
    assert book.depth_strings() == before
    assert book.rescales == 0


def test_lists_tuples_and_further_fields_are_levels_alike(book: OrderBook) -> None:
    book.apply_diff(([["100.55", "1", "1712345678.123"]]), ((("100.56", "2", "0", "4"),)))
    assert book.best_raw() == (10055, 1000, 10056, 2000)


def test_a_snapshot_replaces_everything_in_any_order(book: OrderBook) -> None:
    levels = [(str(price), str(price % 7 + 1)) for price in range(1, 400)]
    shuffled = random.Random(4).sample(levels, len(levels))
    book.apply_snapshot(shuffled, [])
    assert [price for price, _ in book.depth()[0]] == list(range(399, 0, -1))
    assert book.ask_count == 0


def test_the_last_of_several_levels_at_one_price_stands(book: OrderBook) -> None:
    book.apply_snapshot([("5", "1"), ("5.0", "2"), ("4", "3"), ("4", "0")], [("6", "0"), ("6", "1")])
    assert book.depth_strings() == ([("5.00", "2.000")], [("6.00", "1.000")])


def test_crossed_and_locked_books_show(book: OrderBook) -> None:
    assert not book.is_crossed
    book.apply_diff([("100.60", "1")], [])
    assert book.is_crossed
    book.apply_diff([("100.70", "1")], [])
    assert book.is_crossed


def test_finer_values_rescale_the_book_and_are_counted(book: OrderBook) -> None:
    book.apply_diff([("100.505", "1.0001")], [])
    assert (book.price_exponent, book.size_exponent, book.rescales) == (-3, -4, 2)
    assert book.depth_strings(2)[0] == [("100.505", "1.0001"), ("100.500", "1.5000")]
    book.apply_diff([("100.504", "1.0002")], [])
    assert book.rescales == 2


def test_trailing_zeros_are_not_finer(book: OrderBook) -> None:
    book.apply_diff([("100.51000000", "1.00000000")], [])
    assert book.rescales == 0


@pytest.mark.parametrize("text", ["1e1", "0.1E2", "+10", "010", "10.", "100e-1", "1000000000000000000000e-20"])
def test_every_spelling_of_a_number_is_that_number(text: str) -> None:
    book = OrderBook("A-B", -1, 0)
    book.apply_diff([(text, text)], [])
    assert book.depth_strings()[0] == [("10.0", "10")]


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "1.2.3", "1e", "1e+", "0x10", "NaN", "Infinity", " 1", "1 ", "1_0", "١", "1\0", "\ud800"],
)
def test_what_is_no_number_is_refused_by_pair_and_value(book: OrderBook, text: str) -> None:
    with pytest.raises(BookError, match=r"ETH-USDT: .* is not a decimal number") as refused:
        book.apply_diff([(text, "1")], [])
    assert repr(text) in str(refused.value)
    with pytest.raises(BookError, match="is not a decimal number"):
        OrderBook("ETH-USDT", 0, 0).apply_diff([("1", text)], [])


@pytest.mark.parametrize("entry", [("1",), (), "12", None, 5, (1, "2"), ("1", 2.0), (b"1", "2")])
def test_what_is_no_level_is_refused(book: OrderBook, entry: object) -> None:
    with pytest.raises(BookError, match="ETH-USDT"):
        book.apply_diff([entry], [])  # type: ignore[list-item]  # the very point
    assert not book.is_valid


def test_levels_that_are_no_sequence_leave_the_book_invalid(book: OrderBook) -> None:
    with pytest.raises(TypeError):
        book.apply_diff(5, [])  # type: ignore[arg-type]  # the very point
    assert not book.is_valid


@pytest.mark.parametrize(
    ("price", "size"),
    [
        ("92233720368547758.08", "1"),
        ("1", "1" + "0" * 33),
        ("1", "1.0000000000000000000000000000000000001"),
        ("1e300", "1"),
        ("1", "1e300"),
        ("1", "1e-31"),
        ("1e-31", "1"),
        ("1", "-1"),
    ],
)
def test_a_value_that_cannot_be_held_leaves_the_book_invalid_never_short(
    book: OrderBook, price: str, size: str
) -> None:
    with pytest.raises(BookError, match="ETH-USDT"):
        book.apply_diff([("100.55", "1"), (price, size)], [("100.60", "0")])
    assert not book.is_valid
    for query in (book.best_bid, book.best_ask, book.best_raw, book.depth, book.depth_strings, book.to_numpy):
        with pytest.raises(BookError, match="invalid"):
            query()
    with pytest.raises(BookError, match="invalid"):
        _ = book.is_crossed
    with pytest.raises(BookError, match="invalid"):
        book.apply_diff([], [])
    book.apply_snapshot(BIDS, ASKS)
    assert book.is_valid
    assert book.best_raw() == (10050, 1500, 10060, 500)


def test_the_largest_values_fit_exactly() -> None:
    book = OrderBook("A-B", 0, 0)
    book.apply_diff([("9223372036854775807", "9223372036854775807")], [])
    assert book.depth_strings()[0] == [("9223372036854775807", "9223372036854775807")]


def test_a_rescale_that_other_levels_cannot_follow_is_refused_and_a_snapshot_starts_anew() -> None:
    book = OrderBook("A-B", 0, 0)
    book.apply_diff([("9223372036854775807", "1")], [])
    with pytest.raises(BookError, match=r"'0\.5' needs exponent -1"):
        book.apply_diff([("0.5", "2")], [])
    book.apply_snapshot([("9223372036854775807", "1")], [])
    assert (book.price_exponent, book.is_valid) == (0, True)
    book.apply_diff([("1", "9" * 36)], [])
    with pytest.raises(BookError, match=r"'0\.5' needs exponent -1.* 36 digits"):
        book.apply_diff([("2", "0.5")], [])
    book.apply_snapshot([("1", "0.5")], [])
    assert (book.size_exponent, book.is_valid, book.is_wide) == (-1, True, False)


# ------------------------------------------------------------------------------------------------------- wide books


def test_sizes_that_share_no_exponent_in_64_bits_are_held_exactly(book: OrderBook) -> None:
    book.apply_diff([("100.45", "173176223.451200000000")], [])
    assert not book.is_wide
    book.apply_diff([("100.50", "0.0000000000001")], [("100.65", "2E3")])
    assert (book.is_wide, book.is_valid, book.size_exponent, book.rescales) == (True, True, -13, 3)
    assert book.depth_strings() == (
        [
            ("100.50", "0.0000000000001"),
            ("100.45", "173176223.4512000000000"),
            ("100.40", "2.0000000000000"),
            ("100.10", "3.0000000000000"),
        ],
        [
            ("100.60", "0.5000000000000"),
            ("100.65", "2000.0000000000000"),
            ("100.70", "4.0000000000000"),
            ("101.00", "5.0000000000000"),
        ],
    )
    assert book.best_raw() == (10050, 1, 10060, 5 * 10**12)
    assert book.best_equals("100.5", "0.00000000000010", "100.6", "0.5")
    assert not book.best_equals("100.5", "0.0000000000002", "100.6", "0.5")


def test_a_token_with_a_supply_of_a_thousand_trillion_at_eight_decimals() -> None:
    book = OrderBook("CAT-USDT", -12, -8)
    supply = "1000000000000000.00000001"
    book.apply_snapshot([("0.000000000001", supply), ("0.000000000002", "0.00000001")], [("0.000000000004", supply)])
    assert book.depth_strings() == (
        [("0.000000000002", "0.00000001"), ("0.000000000001", supply)],
        [("0.000000000004", supply)],
    )
    bids, asks, price_exponent, size_exponent = book.to_numpy()
    assert (bids.tolist(), asks.tolist()) == ([[2, 1], [1, 10**23 + 1]], [[4, 10**23 + 1]])
    assert (price_exponent, size_exponent) == (-12, -8)
    assert book.best_ask() == (Decimal("0.000000000004"), Decimal(supply))
    book.apply_diff([("0.000000000001", "0")], [("0.000000000004", "1" + "0" * 18)])
    assert book.best_raw() == (2, 1, 4, 10**26)
    assert book.bid_count == 1


def test_a_wide_book_stays_so_until_an_invalid_one_begins_anew(book: OrderBook) -> None:
    book.apply_diff([("100.50", "9" * 20)], [])
    book.apply_snapshot(BIDS, ASKS)
    assert (book.is_wide, book.rescales) == (True, 1)
    assert book.best_raw() == (10050, 1500, 10060, 500)
    with pytest.raises(BookError, match="36 digits"):
        book.apply_diff([("1", "9" * 34)], [])
    with pytest.raises(BookError, match="negative"):
        book.apply_snapshot([("1", "-" + "9" * 20)], [])
    book.apply_snapshot(BIDS, ASKS)
    assert not book.is_wide


def test_a_wide_book_of_many_levels_in_any_order_is_the_twin_s() -> None:
    choose = random.Random(8)
    book, twin = OrderBook("A-B", 0, 0), ReferenceBook("A-B", 0, 0)

    def levels(count: int) -> list[tuple[str, str]]:
        return [(str(choose.randrange(900)), str(choose.choice((0, 1, 10**17, 10**30 + 7)))) for _ in range(count)]

    for update in (levels(700), levels(2000), *(levels(30) for _ in range(50))):
        side = choose.choice(((update, []), ([], update)))
        for each in (book, twin):
            each.apply_diff(*side)
        assert book.truncate(300) == twin.truncate(300)
        assert book.depth() == twin.depth()
    whole = levels(3000)
    for each in (book, twin):
        each.apply_snapshot(whole, whole)
    assert book.depth() == twin.depth()
    assert book.is_wide


def test_the_best_is_compared_exactly_and_in_any_spelling(book: OrderBook) -> None:
    assert book.best_equals("100.5", "1.50000000", "100.60", "0.5")
    assert not book.best_equals("100.5", "1.5", "100.60", "0.50001")
    assert not book.best_equals("100.5000001", "1.5", "100.60", "0.5")
    assert not book.best_equals("100.5", "1.5", "junk", "0.5")
    book.apply_snapshot(BIDS, [])
    assert book.best_equals("100.5", "1.5", "0.00000000", "0.00000000")
    assert not book.best_equals("100.5", "1.5", "100.6", "0.5")
    assert not book.best_equals("0", "0", "0", "0")


def test_grows_far_beyond_its_first_room() -> None:
    book = OrderBook("A-B", 0, 0)
    for price in range(5000):
        book.apply_diff([(str(price), "1")], [(str(20000 - price), "1")])
    assert (book.bid_count, book.ask_count) == (5000, 5000)
    assert book.best_raw() == (4999, 1, 15001, 1)


# ------------------------------------------------------------------------------------------------- against the twin


def spellings(number: int, places: int) -> st.SearchStrategy[str]:
    plain = f"{Decimal(f'{number}e{-places}'):f}"
    padded = plain + "0" * 3 if "." in plain else plain + ".00"
    return st.sampled_from([plain, padded, f"{number}e{-places}", "00" + plain if number >= 0 else plain])


def numbers(low: int, widest: int) -> st.SearchStrategy[str]:
    ordinary = st.tuples(st.integers(low, 60), st.integers(0, 3))
    extreme = st.tuples(st.integers(low * 2**63, widest), st.integers(-4, 33))
    mixed = st.integers(0, 19).flatmap(lambda pick: extreme if pick == 0 else ordinary)
    return mixed.flatmap(lambda pair: spellings(*pair))


LEVELS = st.lists(st.tuples(numbers(-1, 2**64), st.one_of(numbers(0, 2**64), numbers(0, 10**37))), max_size=6)
UPDATES = st.sampled_from(["apply_diff", "apply_diff", "apply_diff", "apply_snapshot", "truncate"])
OPERATIONS = st.lists(st.tuples(UPDATES, LEVELS, LEVELS), max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.integers(-3, 2), st.integers(-3, 2), st.integers(0, 4), OPERATIONS)
@example(0, 0, 1, [("apply_snapshot", [("1", "9223372036854775807"), ("1", "1"), ("2", "0.5")], [])])
@example(0, 0, 0, [("apply_diff", [], [("0", "999999999997660.00"), ("1", "0.0000000000000000000001")])])
@example(0, -1, 1, [("apply_diff", [("1", "9223372036854775807")], []), ("apply_diff", [("1", "1e36")], [])])
def test_any_sequence_of_updates_leaves_the_book_as_its_plain_twin(
    price_exponent: int,
    size_exponent: int,
    depth: int,
    operations: list[tuple[str, list[tuple[str, str]], list[tuple[str, str]]]],
) -> None:
    book = OrderBook("A-B", price_exponent, size_exponent)
    twin = ReferenceBook("A-B", price_exponent, size_exponent)
    for name, bids, asks in operations:
        outcomes: list[object] = []
        for each in (book, twin):
            try:
                outcomes.append(each.truncate(depth) if name == "truncate" else getattr(each, name)(bids, asks))
            except BookError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1]
        assert (book.is_valid, book.is_wide, book.rescales) == (twin.is_valid, twin.is_wide, twin.rescales)
        if book.is_valid:
            assert book.depth() == twin.depth()
            assert book.is_crossed == twin.is_crossed
            assert (book.price_exponent, book.size_exponent) == (twin.price_exponent, twin.size_exponent)
            agrees_with_itself(book)


def agrees_with_itself(book: OrderBook) -> None:
    """Every query gives the same levels."""
    bids, asks, price_exponent, size_exponent = book.to_numpy()
    assert bids.dtype == asks.dtype == (object if book.is_wide else np.int64)
    for side, levels in ((bids, book.depth()[0]), (asks, book.depth()[1])):
        assert side.shape == (len(levels), 2)
        scaled = [(Decimal(f"{price}e{price_exponent}"), Decimal(f"{size}e{size_exponent}")) for price, size in side]
        assert scaled == levels
    raw = [int(number) for side in (bids, asks) for number in (side[0] if len(side) else (0, 0))]
    assert list(book.best_raw()) == raw
    bid, ask = book.best_bid() or (0, 0), book.best_ask() or (0, 0)
    assert book.best_equals(*(str(number) for number in (*bid, *ask)))


def test_cells_hold_a_book_exactly_and_another_takes_them() -> None:
    book = OrderBook("BTC-USDT", -2, -3)
    book.apply_snapshot([("100.50", "1.5"), ("100.25", "2")], [("101.00", "0.125"), ("101.01", "7")])
    bids, asks = book.cells()
    assert np.frombuffer(bids, "<i8").tolist() == [10050, 1500, 10025, 2000]
    assert np.frombuffer(asks, "<i8").tolist() == [10100, 125, 10101, 7000]
    assert book.cells(1) == (bids[:16], asks[:16])
    other = OrderBook("BTC-USDT", -2, -3)
    other.apply_snapshot([("9", "9")], [])
    other.load_cells(bids, asks)
    assert other.depth_strings() == book.depth_strings()
    other.load_cells(b"", b"")
    assert other.depth_strings() == ([], [])


def test_a_wide_book_has_no_cells() -> None:
    book = OrderBook("BTC-USDT", -2, -3)
    book.apply_snapshot([("1.00", "173176223451234567.8"), ("0.99", "0.00000000001")], [])
    assert book.is_wide
    with pytest.raises(BookError, match="do not fit in 64 bits"):
        book.cells()


@pytest.mark.parametrize(
    "cells",
    [b"123", cell_bytes(1, 0), cell_bytes(-1, 5), cell_bytes(5, -1), cell_bytes(1, 1, 2, 1), cell_bytes(1, 1, 1, 1)],
)
def test_what_is_no_side_of_a_book_is_refused_and_leaves_it_invalid(cells: bytes) -> None:
    book = OrderBook("BTC-USDT", -2, -3)
    with pytest.raises(BookError):
        book.load_cells(cells, b"")
    assert not book.is_valid
    book.load_cells(cell_bytes(2, 1, 1, 1), b"")
    assert book.is_valid
