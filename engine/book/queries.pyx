"""What a taker would get of one side of a book: simulated fills, and volumes up to a price.

The levels may lie in a book or in a copy of a shared one; both answer alike, and exactly: sums are whole numbers of
any length. Where the answer would need levels that are not there, BookError says so instead of an answer too small.
"""

from libc.stdint cimport int64_t

from engine.book.decimals cimport WORD

from decimal import Decimal

from engine.book.views import Execution, Volume
from engine.errors import BookError


cdef object fill(const Cells* cells, str pair, object size, object status):
    """Takes ``size`` from the best level on."""
    cdef int exponent = exponent_for(pair, size, cells.size_exponent)
    cdef object unit = ten_to(cells.size_exponent - exponent)
    cdef object wanted = whole(size, exponent)
    cdef object left = wanted, cost = 0, have, price
    cdef object worst = None
    cdef Py_ssize_t i, levels = 0
    for i in range(cells.count):
        if left == 0:
            break
        price = price_at(cells, i)
        have = size_at(cells, i) * unit
        if have > left:
            have = left
        left -= have
        cost += price * have
        worst = price
        levels += 1
    if left and cells.is_cut:
        raise too_few(cells, pair)
    return Execution(
        status=status,
        size=exact(wanted - left, exponent),
        cost=exact(cost, cells.price_exponent + exponent),
        worst=None if worst is None else exact(worst, cells.price_exponent),
        levels=levels,
        complete=left == 0,
    )


cdef object fill_quote(const Cells* cells, str pair, object quote, object status):
    """Takes what ``quote`` pays for, the last part of it in whole steps of the book's sizes."""
    cdef int worth_exponent = cells.price_exponent + cells.size_exponent
    cdef int exponent = exponent_for(pair, quote, worth_exponent)
    cdef object unit = ten_to(worth_exponent - exponent)
    cdef object wanted = whole(quote, exponent)
    cdef object left = wanted, taken = 0, have, price
    cdef object worst = None
    cdef Py_ssize_t i, levels = 0
    cdef bint complete = False
    for i in range(cells.count):
        price = price_at(cells, i)
        have = size_at(cells, i)
        if price * have * unit > left:
            have = left // (price * unit)
            complete = True
        if have:
            left -= price * have * unit
            taken += have
            worst = price
            levels += 1
        if complete or left == 0:
            complete = True
            break
    if not complete and cells.is_cut:
        raise too_few(cells, pair)
    return Execution(
        status=status,
        size=exact(taken, cells.size_exponent),
        cost=exact(wanted - left, exponent),
        worst=None if worst is None else exact(worst, cells.price_exponent),
        levels=levels,
        complete=complete,
    )


cdef object volume(const Cells* cells, str pair, object price, bint is_buy, object status):
    """All that is offered at ``price`` or better."""
    cdef object limit = limit_of(pair, price, cells.price_exponent, is_buy)
    cdef object base = 0, quote = 0, at
    cdef Py_ssize_t i, levels = 0
    for i in range(cells.count):
        at = price_at(cells, i)
        if at > limit if is_buy else at < limit:
            break
        base += size_at(cells, i)
        quote += at * size_at(cells, i)
        levels += 1
    if levels == cells.count and cells.is_cut and (levels == 0 or price_at(cells, levels - 1) != limit):
        raise too_few(cells, pair)
    return Volume(
        status=status,
        base=exact(base, cells.size_exponent),
        quote=exact(quote, cells.price_exponent + cells.size_exponent),
        levels=levels,
    )


cdef object exact(object mantissa, int exponent):
    """``mantissa × 10**exponent`` as a Decimal, however many digits it has."""
    return Decimal(f"{mantissa}e{exponent}")


# ------------------------------------------------------------------------------------------------------------ steps


cdef object ten_to(int places):
    return 10 ** <object>places  # of Python's numbers, which have any length


cdef object price_at(const Cells* cells, Py_ssize_t i):
    return <object>(cells.first[2 * i * cells.step] * cells.direction)


cdef object size_at(const Cells* cells, Py_ssize_t i):
    cdef object low = cells.first[2 * i * cells.step + 1]
    return low + <object>cells.high[i * cells.step] * WORD if cells.high != NULL else low


cdef int exponent_for(str pair, object amount, int exponent) except? -1:
    """The exponent at which an amount and all of the book's are whole numbers."""
    if not isinstance(amount, Decimal):
        raise TypeError(f"sizes and amounts are Decimal, not {type(amount).__name__}")
    if not amount.is_finite() or amount <= 0:
        raise BookError(f"{pair}: {amount} cannot be taken; ask for more than 0")
    return min(exponent, <int>amount.as_tuple().exponent)


cdef object whole(object amount, int exponent):
    """``amount ÷ 10**exponent``, which is a whole number."""
    numerator, denominator = amount.as_integer_ratio()
    return numerator * ten_to(-exponent) // denominator if exponent < 0 else numerator // (denominator * ten_to(exponent))


cdef object limit_of(str pair, object price, int exponent, bint is_buy):
    """The last mantissa that is at ``price`` or better, whether or not there is such a level."""
    if not isinstance(price, Decimal):
        raise TypeError(f"prices are Decimal, not {type(price).__name__}")
    if not price.is_finite():
        raise BookError(f"{pair}: {price} is not a price")
    numerator, denominator = price.as_integer_ratio()
    if exponent < 0:
        numerator *= ten_to(-exponent)
    else:
        denominator *= ten_to(exponent)
    return numerator // denominator if is_buy else -(-numerator // denominator)


cdef object too_few(const Cells* cells, str pair):
    return BookError(
        f"{pair}: the answer needs more than the {cells.count} levels of a side that are published; ask for less or "
        "raise the book's depth (books.depth)"
    )
