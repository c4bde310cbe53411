"""Every public function says which argument is wrong, what it was, and what is allowed.

Each line of a table below is a function, arguments that it takes, and for one of them a strategy of wrong values.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import checks, finite_field, inits, linear, nets, spectra
from firststep.book import explore, figures
from firststep.book.panels import plateau, scalar_pair

F64 = torch.float64


def seed():
    return torch.Generator().manual_seed(0)


def field():
    return np.random.default_rng(0)


# Values that are wrong, by what is wanted

words = st.text(max_size=6)
not_a_number = st.one_of(
    st.none(), st.booleans(), words, st.just([0.1]), st.just(1j), st.sampled_from([float("nan"), float("inf"), 10**400])
)
not_an_integer = st.one_of(st.none(), st.booleans(), st.floats(), words, st.just([3]), st.just(Fraction(1, 2)))
not_a_positive_integer = not_an_integer | st.integers(max_value=0)
not_a_natural_number = not_an_integer | st.integers(max_value=-1)
not_widths = st.one_of(
    st.lists(st.integers(1, 9), max_size=1),  # empty, or no layer
    st.tuples(not_a_positive_integer, st.integers(1, 9)),
    st.lists(st.integers(-3, 9), min_size=2, max_size=5).filter(lambda d: min(d) < 1),
    st.integers(), st.none(), st.text(min_size=2, max_size=3),
)  # fmt: skip
not_a_generator = st.one_of(
    st.none(), st.integers(), words, st.just([]), st.just([None]), st.builds(lambda: [seed(), None])
)
not_a_dtype = st.sampled_from([None, "float64", float, np.float64, torch.int64, torch.float16, torch.complex64])


def word_outside(known):
    return st.one_of(words.filter(lambda w: w not in known), st.none(), st.integers(), st.just([]), st.just({}))


def outside_interval(low, high, *, closed=True):
    below, above = st.floats(max_value=low, exclude_max=True), st.floats(min_value=high, exclude_min=closed)
    return st.one_of(below, above, st.none(), words, st.just(float("nan")), st.just([0.5]))


@st.composite
def not_matrices(draw):
    """Not a tensor; or a vector, an empty one, another dtype, or one with an entry that is not finite."""
    kind = draw(st.sampled_from(["type", "shape", "dtype", "entry"]))
    if kind == "type":
        return draw(st.sampled_from([None, 3, "x", [[1.0]], np.eye(2)]))
    if kind == "shape":
        return torch.ones(draw(st.sampled_from([(), (3,), (0, 3), (3, 0), (2, 0, 3), (0, 2, 3)])), dtype=F64)
    if kind == "dtype":
        return torch.ones(2, 3).to(draw(st.sampled_from([torch.int64, torch.bool, torch.float16, torch.complex128])))
    matrix = torch.ones(2, 2, 3, dtype=draw(st.sampled_from([torch.float32, F64])))
    matrix[draw(st.integers(0, 1)), draw(st.integers(0, 1)), draw(st.integers(0, 2))] = draw(
        st.sampled_from([float("nan"), float("inf"), -float("inf")])
    )
    return matrix


@st.composite
def not_a_chain(draw):
    """No list; an empty one; a wrong matrix in it; or matrices that do not fit each other."""
    kind = draw(st.sampled_from(["type", "matrix", "shapes", "dtypes", "runs"]))
    if kind == "type":
        return draw(st.sampled_from([None, [], (), 3, "WW", torch.ones(2, 3, 3, dtype=F64)]))
    if kind == "matrix":
        return [torch.ones(2, 3, dtype=F64), draw(not_matrices())]
    if kind == "shapes":
        inner = draw(st.integers(1, 5).filter(lambda d: d != 2))
        return [torch.ones(2, 3, dtype=F64), torch.ones(2, inner, dtype=F64)]
    if kind == "dtypes":
        return [torch.ones(2, 3, dtype=F64), torch.ones(2, 2, dtype=torch.float32)]
    return [torch.ones(2, 2, 3, dtype=F64), torch.ones(3, 2, 2, dtype=F64)]


@st.composite
def not_over_the_field(draw):
    """No array; a vector; another dtype; or entries outside the field."""
    return draw(
        st.sampled_from(
            [
                None, [[1]], torch.ones(2, 2, dtype=torch.int64), np.ones(3, dtype=np.int64), np.eye(2),
                np.ones((2, 2), dtype=np.int32), np.ones((2, 2), dtype=bool), -np.eye(2, dtype=np.int64),
                np.full((2, 2), finite_field.PRIME), np.full((2, 2), 2**62),
            ]
        )
    )  # fmt: skip


not_a_chain_over_the_field = st.one_of(
    st.sampled_from([None, [], 3]),
    not_over_the_field().map(lambda a: [a]),
    st.just([np.ones((2, 3), dtype=np.int64), np.ones((2, 3), dtype=np.int64)]),
)
not_step_sizes = st.one_of(
    not_a_number,
    st.floats(max_value=0),
    st.lists(st.floats(max_value=0), min_size=1, max_size=3).map(lambda v: torch.tensor([0.1, *v], dtype=F64)),
    st.sampled_from([float("nan"), float("inf")]).map(lambda v: torch.tensor([0.1, v], dtype=F64)),
)
ONE, PAIR = torch.ones(2, 3, dtype=F64), [torch.ones(2, 3, dtype=F64), torch.ones(2, 2, dtype=F64)]
MOMENTS = linear.Moments.whitened(ONE)
OVER = {"weights": [np.ones((2, 3), dtype=np.int64)], "xx": np.eye(3, dtype=np.int64), "yx": np.ones((2, 3), np.int64)}
NET = {"d_in": 3, "width": 4, "depth": 2, "d_out": 1}
PLATEAU = {"rank_1": 2, "rank_2": 2, "factors": "aligned", "arithmetic": "float64", "iterations": 0}
SCALAR = {"w1": 1.0, "w2": 1.0, "step_size": 0.1, "target": 1}


# Of another network, or in another dtype.
not_moments = st.one_of(
    st.sampled_from([None, 3, ONE]),
    st.sampled_from([(2, 2), (3, 2), (1, 3)]).map(lambda s: linear.Moments.whitened(torch.ones(s, dtype=F64))),
    st.just(linear.Moments.whitened(ONE.float())),
)
not_square = st.sampled_from([(2, 2), (2, 3), (3, 1)]).map(lambda shape: torch.ones(shape, dtype=F64))


@dataclass
class Wrong:
    """A call that fails whatever value the strategy puts in for the argument."""

    function: object
    argument: str
    values: st.SearchStrategy
    good: dict

    def __str__(self):
        name = self.function.__qualname__.removesuffix(".__init__")
        return f"{self.function.__module__.split('.')[-1]}.{name}({self.argument})"


def table(function, good, **wrong):
    return [Wrong(function, argument, values, good) for argument, values in wrong.items()]


GENERATOR = seed()
WRONG = [
    *table(spectra.rank_tolerance, {"a": ONE}, a=not_matrices(), convention=word_outside(spectra.CONVENTIONS)),
    *table(
        spectra.numerical_rank, {"a": ONE}, a=not_matrices(),
        rtol=outside_interval(0, 1, closed=False).filter(lambda rtol: rtol is not None),
    ),
    *table(spectra.soft_rank, {"h": ONE, "tau": 0.5}, h=not_matrices(), tau=outside_interval(0, 1)),
    *table(spectra.stable_rank, {}, h=not_matrices()),
    *table(
        inits.matrix, {"name": "sign", "rows": 2, "columns": 3, "generator": GENERATOR},
        name=word_outside(inits.INITIALIZERS), rows=not_a_positive_integer, columns=not_a_positive_integer,
        generator=not_a_generator, dtype=not_a_dtype,
    ),
    *table(
        inits.network, {"widths": (3, 2), "name": "sign", "generator": GENERATOR},
        widths=not_widths, name=word_outside(inits.INITIALIZERS), generator=not_a_generator, dtype=not_a_dtype,
    ),
    *table(
        inits.prescribed_rank, {"widths": (3, 2, 4), "ranks": (1, 2), "aligned": True, "generator": GENERATOR},
        widths=not_widths, generator=not_a_generator, dtype=not_a_dtype,
        ranks=st.one_of(
            st.tuples(st.integers(3), st.integers(0, 2)), st.integers(3), st.integers(max_value=-1), not_an_integer,
            st.tuples(st.integers(max_value=-1), st.integers(0, 2)), st.lists(st.integers(0, 2)).filter(
                lambda ranks: len(ranks) != 2
            ),
        ),
    ),
    *table(
        inits.generators, {}, seeds=st.one_of(
            not_a_positive_integer.filter(lambda seeds: seeds != [3]), st.just([2**63]),
            st.lists(not_a_natural_number, max_size=3),
        ),
    ),
    *table(linear.product, {}, weights=not_a_chain()),
    *table(linear.loss, {"weights": [ONE], "moments": MOMENTS}, weights=not_a_chain(), moments=not_moments),
    *table(linear.excess_loss, {"weights": [ONE], "moments": MOMENTS}, weights=not_a_chain(), moments=not_moments),
    *table(linear.gradient, {"weights": [ONE], "moments": MOMENTS}, weights=not_a_chain(), moments=not_moments),
    *table(
        linear.gradient_descent, {"weights": PAIR, "moments": MOMENTS, "step_size": 0.1, "steps": 2},
        weights=not_a_chain(), moments=not_moments, step_size=not_step_sizes, steps=not_a_natural_number,
        every=st.one_of(
            not_a_positive_integer.filter(lambda v: v != [3]), st.just([]), st.lists(not_a_natural_number, min_size=1),
            st.lists(st.integers(3), min_size=1),
        ),
    ),
    *table(
        linear.reachable_rank, {"weights": PAIR}, weights=not_a_chain(), rtol=st.floats(1) | st.floats(max_value=-0.1)
    ),
    *table(
        linear.project_onto_reachable, {"weights": PAIR},
        weights=not_a_chain() | st.just([torch.ones(5, 2, 3, dtype=F64), torch.ones(5, 2, 2, dtype=F64)]),
    ),
    *table(
        linear.Moments.of, {"x": ONE, "y": ONE},
        x=not_matrices() | st.sampled_from([torch.ones(2, 4, dtype=F64), torch.ones(2, 3)]), y=not_matrices(),
    ),
    *table(linear.Moments.whitened, {}, target=not_matrices()),
    *table(
        linear.Moments, {"xx": torch.eye(3, dtype=F64), "yx": ONE, "yy": torch.tensor(1.0, dtype=F64)},
        xx=not_matrices().filter(lambda xx: xx is not None) | not_square | st.just(torch.eye(3)), yx=not_matrices(),
        yy=st.sampled_from([None, 1.0, torch.tensor(1.0), torch.tensor(torch.nan, dtype=F64)]),
    ),
    *table(
        finite_field.random_matrix, {"rows": 2, "columns": 3, "generator": field()},
        rows=not_a_positive_integer, columns=not_a_positive_integer, generator=not_a_generator | st.builds(seed),
        rank=(not_a_natural_number | st.integers(3)).filter(lambda rank: rank is not None),
    ),
    *table(finite_field.column_basis, {}, a=not_over_the_field()),
    *table(finite_field.rank, {}, a=not_over_the_field()),
    *table(
        finite_field.gradient_step, {**OVER, "step_size": 1},
        weights=not_a_chain_over_the_field, step_size=not_an_integer,
        xx=not_over_the_field() | st.just(np.ones((2, 2), dtype=np.int64)),
        yx=not_over_the_field() | st.just(np.ones((1, 3), dtype=np.int64)),
    ),
    *table(
        finite_field.prescribed_rank, {"widths": (3, 2), "ranks": [1], "aligned": True, "generator": field()},
        widths=not_widths, generator=not_a_generator | st.builds(seed),
        ranks=st.one_of(
            st.lists(st.integers(3), min_size=1, max_size=1), st.lists(st.integers(max_value=-1), min_size=1),
            st.lists(st.integers(0, 2)).filter(lambda ranks: len(ranks) != 1), not_an_integer.map(lambda r: [r]),
            st.none(), st.integers(),
        ),
    ),
    *table(finite_field.reachable_rank, {}, weights=not_a_chain_over_the_field),
    *table(finite_field.active_spaces, OVER, weights=not_a_chain_over_the_field, xx=not_over_the_field()),
    *table(
        finite_field.data_ceiling, {**OVER, "generator": field()},
        generator=not_a_generator, yx=not_over_the_field(),
    ),
    *table(
        nets.MLP, NET, d_in=not_a_positive_integer, width=not_a_positive_integer, depth=not_a_natural_number,
        d_out=not_a_positive_integer, activation=word_outside(nets.MODULES),
    ),
    *table(
        nets.initialize_, {"net": nets.MLP(**NET), "scheme": "sign", "generator": GENERATOR},
        scheme=word_outside([*inits.INITIALIZERS, *nets.TORCH_SCHEMES]), generator=not_a_generator,
    ),
    *table(
        figures.band, {"ax": None, "x": [0, 1], "y": [[1.0], [2.0]], "label": "m", "color": "blue"},
        color=word_outside(figures.COLORS), level=outside_interval(0, 1),
        y=st.sampled_from([(2,), (1, 1), (3, 1), (), (2, 1, 1)]).map(np.ones),
    ),
    *table(
        explore.Control, {"name": "x", "label": "x", "values": (1, 2), "default": 1},
        values=st.sampled_from([(), (1,), (1, 1), (1, "a")]), default=st.integers(3) | st.none() | words,
    ),
    *table(
        plateau.plateau.simulate, PLATEAU, factors=word_outside(["aligned", "unaligned"]),
        arithmetic=word_outside(plateau.DTYPES),
        iterations=not_a_natural_number | st.integers(plateau.MAX_STEPS + 1),
    ),
    *table(
        scalar_pair.scalar_pair.simulate, SCALAR, w1=not_a_number, w2=not_a_number,
        step_size=not_a_number | st.floats(max_value=0),
        target=not_an_integer | st.integers().filter(lambda target: target not in (1, -1)),
    ),
]  # fmt: skip


def parts(value):
    """What an error must say of a value: its representation; of a tensor or an array what is wrong with it."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield from (str(tuple(value.shape)), str(value.dtype), "nan or inf", repr(value), type(value).__name__)
        if value.ndim > 2:
            yield str(tuple(value.shape[:-2]))
        if isinstance(value, np.ndarray) and value.size:
            yield str(value.max())
    elif isinstance(value, linear.Moments):
        yield from (part for name in ("xx", "yx", "yy") for part in parts(getattr(value, name)))
    else:
        yield from (repr(value), type(value).__name__)
        if isinstance(value, list | tuple | str):
            yield repr(tuple(value))
        if isinstance(value, list | tuple):
            yield from (part for item in value for part in parts(item))


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_a_wrong_argument_is_named_with_its_value_and_with_what_is_allowed(wrong, data):
    value = data.draw(wrong.values, label=wrong.argument)
    with pytest.raises(ValueError) as caught:
        wrong.function(**{**wrong.good, wrong.argument: value})
    says = str(caught.value)
    assert re.search(rf"\b{wrong.argument}\b", says), says
    assert " must " in says and ", got " in says, says
    assert any(part in says.split(", got ", 1)[1] for part in parts(value)), says


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_the_other_arguments_of_each_wrong_call_are_right(wrong):
    if set(wrong.good) >= {wrong.argument} and wrong.function is not figures.band:
        wrong.function(**wrong.good)


def test_hundreds_of_wrong_calls_are_tried():
    assert 25 * len(WRONG) > 1_000


# The sentences themselves


def test_a_sentence_has_the_name_the_value_and_what_is_allowed():
    with pytest.raises(ValueError) as caught:
        checks.widths("widths", (3, 0))
    assert str(caught.value) == "widths must be at least two positive integers (d_0, …, d_L), got widths=(3, 0)"


def test_a_shape_that_does_not_chain_is_shown_with_its_neighbours():
    weights = [torch.ones(4, 3), torch.ones(2, 5)]
    with pytest.raises(ValueError, match=r"weights must chain, .*, got weights of shapes \[\(4, 3\), \(2, 5\)\]"):
        checks.weights("weights", weights)


def test_the_layer_with_the_wrong_entry_is_named():
    with pytest.raises(ValueError, match=r"weights\[W_2\] must have finite entries only"):
        checks.weights("weights", [torch.ones(2, 2), torch.full((2, 2), torch.nan)])


@given(value=st.integers(1, 50), kind=st.sampled_from([int, np.int64, np.int32]))
def test_integers_of_numpy_count_as_integers(value, kind):
    assert checks.positive_integer("n", kind(value)) == value
    assert checks.widths("widths", [kind(value), 3]) == (value, 3)


@given(value=st.one_of(st.integers(-(10**300), 10**300), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_finite_number_is_a_number(value):
    assert checks.number("x", value) == float(value)
    assert checks.number("x", np.float64(value)) == float(value)


def test_a_bound_is_exclusive():
    assert checks.number("x", 0.1, above=0) == 0.1
    with pytest.raises(ValueError, match="x must be a finite number, got x=0"):
        checks.number("x", 0, above=0)


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_finite_matrices_pass_unchanged(shape):
    for dtype in checks.FLOATS:
        a = torch.ones(shape, dtype=dtype)
        assert checks.matrices("a", a) is a


def test_entries_whose_sum_leaves_the_number_range_are_finite_still():
    for dtype in checks.FLOATS:
        largest = torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype)
        assert checks.matrices("a", largest) is largest


@given(entry=st.sampled_from([float("nan"), float("inf"), -float("inf")]), row=st.integers(0, 2))
def test_one_bad_entry_is_seen_among_entries_of_any_size(entry, row):
    for size in (0.0, 1.0, torch.finfo(F64).max, -torch.finfo(F64).max):
        a = torch.full((3, 2), size, dtype=F64)
        a[row, 1] = entry
        with pytest.raises(ValueError, match="a must have finite entries only"):
            checks.matrices("a", a)


def test_infinities_of_both_signs_do_not_cancel():
    with pytest.raises(ValueError, match="a must have finite entries only"):
        checks.matrices("a", torch.tensor([[float("inf"), -float("inf")]], dtype=F64))


def test_numbers_become_float64_without_a_detour():
    assert checks.reals("x", 0.1, device="cpu", allowed="").item() == 0.1
    assert checks.reals("x", [0.1, 1], device="cpu", allowed="").tolist() == [0.1, 1.0]


@pytest.mark.parametrize("check", [checks.positive_integer, checks.natural])
def test_a_count_that_no_loop_comes_to_the_end_of_is_refused(check):
    assert check("steps", checks.LARGEST) == checks.LARGEST
    with pytest.raises(ValueError, match=r"steps must be a .* integer of at most 2\^40, got steps="):
        check("steps", checks.LARGEST + 1)
