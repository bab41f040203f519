"""Histograms: how far a percentile may be off, and that adding loses nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics import Histogram, bucket_upper

VALUES = st.lists(st.integers(min_value=0, max_value=2**48), min_size=1, max_size=40)


def made(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def true_percentile(values, fraction):
    """The smallest value that at least this fraction of all values does not exceed."""
    rank = max(1, math.ceil(round(len(values) * fraction, 9)))
    return sorted(values)[rank - 1]


def test_an_empty_histogram_has_no_percentile():
    histogram = Histogram()
    assert (histogram.count, histogram.percentile(0.5), histogram.maximum) == (0, None, None)


@pytest.mark.parametrize("value", range(32))
def test_small_values_are_exact(value):
    assert made([value]).percentile(1.0) == value


def test_a_negative_value_counts_as_nothing():
    assert made([-5]).buckets == {0: 1}


@given(st.integers(min_value=0, max_value=2**63))
def test_a_bucket_is_at_most_a_sixteenth_of_its_values_wide(value):
    upper = made([value]).maximum
    assert value <= upper <= value + value // 16


@given(st.integers(min_value=0, max_value=900))
def test_buckets_follow_each_other_without_a_hole(index):
    upper = bucket_upper(index)
    assert made([upper]).buckets == {index: 1}
    assert made([upper + 1]).buckets == {index + 1: 1}


@given(VALUES, st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_never_below_the_true_one_and_little_above(values, fraction):
    true = true_percentile(values, fraction)
    assert true <= made(values).percentile(fraction) <= true + true // 16


@given(VALUES, VALUES)
def test_percentiles_grow_with_their_fraction(values, others):
    histogram = made(values + others)
    found = [histogram.percentile(fraction / 20) for fraction in range(21)]
    assert found == sorted(found)
    assert found[-1] == histogram.maximum


@given(VALUES, VALUES)
def test_adding_histograms_is_recording_all_values_in_one(values, others):
    sum_ = made(values)
    other = made(others)
    before = dict(other.buckets)
    sum_.add(other.buckets)
    assert sum_.buckets == made(values + others).buckets
    assert sum_.count == len(values) + len(others)
    assert other.buckets == before


def test_a_histogram_keeps_buckets_of_its_own():
    first = made([1, 2])
    second = Histogram(first.buckets)
    second.record(1)
    assert first.count == 2
