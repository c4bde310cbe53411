"""Critical points of deep linear networks, and the way down from them."""

import itertools

import pytest
import torch

from firststep import inits, linear, saddles, spectra

WIDTHS = {2: (6, 5, 4), 3: (6, 5, 5, 4), 4: (6, 5, 5, 4, 4)}
SUBSETS = [kept for r in range(5) for kept in itertools.combinations(range(4), r)]


def moments(seed=0):
    g = inits.generator(seed)
    x, y = (torch.randn(d, 30, generator=g, dtype=torch.float64, device=g.device) for d in (6, 4))
    return linear.Moments.of(x, y)


def steepest(weights, data):
    return max(float(g.abs().max()) for g in linear.gradient(weights, data))


def filled_points():
    return [(layers, filled) for layers in WIDTHS for filled in range(layers - 1)]


@pytest.mark.parametrize(("layers", "filled"), filled_points())
@pytest.mark.parametrize("kept", SUBSETS)
def test_the_point_is_critical_and_its_loss_is_the_sum_over_missing_directions(layers, filled, kept):
    data = moments()
    weights = saddles.hide(saddles.critical_point(WIDTHS[layers], kept, data, filled=filled), inits.generator(1))
    missing = [i for i in range(4) if i not in kept]
    assert steepest(weights, data) < 1e-11
    assert int(spectra.numerical_rank(linear.product(weights), 1e-9)) == len(kept)
    expected = 0.5 * saddles.directions(data)[1][missing].square().sum()
    torch.testing.assert_close(linear.excess_loss(weights, data), expected, rtol=1e-9, atol=1e-10)


def test_filled_layers_have_a_rank_that_the_product_does_not_show():
    data = moments()
    weights = saddles.critical_point(WIDTHS[4], (1,), data, filled=2)
    ranks = [int(spectra.numerical_rank(w, 1e-9)) for w in weights]
    assert ranks == [1, 1, 4, 4]


def test_the_directions_make_the_least_squares_solution():
    data = moments()
    u, sigma, rows = saddles.directions(data)
    torch.testing.assert_close((u * sigma) @ rows, data.solution())
    whitened = linear.Moments.whitened(data.yx)
    torch.testing.assert_close(saddles.directions(whitened)[1], torch.linalg.svdvals(data.yx))


def test_hiding_keeps_the_product():
    weights = inits.network((6, 5, 4), "xavier_normal", generator=inits.generator(0))
    torch.testing.assert_close(linear.product(saddles.hide(weights, inits.generator(1))), linear.product(weights))


@pytest.mark.parametrize(("layers", "filled"), filled_points())
def test_the_slide_keeps_the_loss_and_the_step_lowers_it(layers, filled):
    data = moments()
    weights = saddles.hide(saddles.critical_point(WIDTHS[layers], (0, 2), data, filled=filled), inits.generator(1))
    slide, step = saddles.way_down(weights, data)
    before = linear.excess_loss(weights, data)
    slid = saddles.moved(weights, slide, 0.2)
    torch.testing.assert_close(linear.excess_loss(slid, data), before)
    after = [linear.excess_loss(saddles.moved(slid, step, s), data) for s in (-1e-3, 1e-3)]
    assert min(after) < before < max(after)


def test_at_full_rank_there_is_no_way_down():
    data = moments()
    assert saddles.way_down(saddles.critical_point(WIDTHS[3], range(4), data), data) is None


def test_what_does_not_fit_is_said():
    data = moments()
    with pytest.raises(ValueError, match="kept"):
        saddles.critical_point(WIDTHS[2], (0, 0), data)
    with pytest.raises(ValueError, match="widths"):
        saddles.critical_point((6, 2, 4), (0, 1, 2), data)
    with pytest.raises(ValueError, match="filled"):
        saddles.critical_point(WIDTHS[3], (0,), data, filled=2)
