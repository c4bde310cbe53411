"""A row computes for itself whether it is met, and says so in words that a reader can check."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import evidence
from firststep.book.evidence import above, at_least, at_most, below, between, equal, near

numbers = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False)


@given(x=numbers, a=numbers, b=numbers)
def test_relations_mean_what_they_say(x, a, b):
    assert below("x", x, a).met == (x < a)
    assert at_most("x", x, a).met == (x <= a)
    assert above("x", x, a).met == (x > a)
    assert at_least("x", x, a).met == (x >= a)
    assert equal("x", x, a).met == (x == a)
    assert between("x", x, a, b).met == (a <= x <= b)


@given(x=st.floats(-1e6, 1e6), target=st.floats(-1e6, 1e6), within=st.floats(0, 1e3))
def test_near_is_a_distance(x, target, within):
    assert near("x", x, target, within).met == (abs(x - target) <= within)


@pytest.mark.parametrize("relation", [below, at_most, above, at_least, equal])
def test_nan_is_never_met(relation):
    assert not relation("x", math.nan, 1).met
    assert not near("x", math.nan, 1, math.inf).met
    assert not between("x", math.nan, -math.inf, math.inf).met


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5, device="cpu"), 0.5])
def test_what_numpy_and_torch_call_a_number_is_one(value):
    assert below("x", value, 1) == below("x", 0.5, 1)


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True, device="cpu"), None, "1", [1.0], np.ones(2), 1j])
def test_a_truth_value_is_no_measurement_and_neither_is_anything_but_a_number(value):
    with pytest.raises(ValueError, match=r"^value must be"):
        below("x", value, 1)


@pytest.mark.parametrize("bound", [math.nan, None, "1", True])
def test_a_bound_is_a_number_that_can_be_met(bound):
    with pytest.raises(ValueError, match=r"^bound must be"):
        below("x", 1, bound)


@pytest.mark.parametrize("what", ["", "  ", None, 3])
def test_a_row_says_what_was_measured(what):
    for row in (lambda: below(what, 1, 2), lambda: equal(what, "a", "a")):
        with pytest.raises(ValueError, match=r"^what must be"):
            row()


def test_words_are_compared_with_words():
    assert equal("order", "a, b", "a, b").met
    assert not equal("order", "a, b", "b, a").met
    with pytest.raises(ValueError, match=r"^value must be a word"):
        equal("order", "3", 3)


@pytest.mark.parametrize("row, words", [
    (below("error", 2.13e-9, 1e-8), "error: $2.13 \\cdot 10^{-9}$, below $10^{-8}$"),
    (equal("found", 240, 240), "found: 240, asked for 240"),
    (near("slope", 1.98, 2, 0.1), "slope: 1.98, within 0.1 of 2"),
    (between("r", -0.5, -1, 0), "r: −0.5, between −1 and 0"),
    (above("largest", math.inf, 1), "largest: $\\infty$, above 1"),
    (below("error", 0.0, 1e-12), "error: 0, below $10^{-12}$"),
    (equal("steps", 12_345_678, 1), "steps: $1.23 \\cdot 10^{7}$, asked for 1"),
])  # fmt: skip
def test_rows_read_as_sentences(row, words):
    assert evidence.sentence(row) == words


@given(value=st.floats(-1e12, 1e12), bound=st.floats(-1e12, 1e12))
def test_a_value_never_looks_like_a_bound_that_it_differs_from(value, bound):
    if value != bound:
        assert evidence.worded(value, (bound,)) != evidence.worded(bound, (value,))
