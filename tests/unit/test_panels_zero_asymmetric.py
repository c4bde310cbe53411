"""The explorables of the chapter on zero-asymmetric initialization say what the theorems say."""

import math

import pytest

from firststep.book.panels.sharp_rate import sharp_rate
from firststep.book.panels.signal_growth import BRANCHES, signal_growth
from firststep.book.panels.zas_depth_and_step import TARGETS, zas_depth_and_step
from firststep.book.panels.zas_stable_manifold import zas_stable_manifold


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("depth", [2, 3, 100, 10_000])
def test_at_step_size_one_every_target_takes_one_step_at_every_depth(depth, target):
    outcome = zas_depth_and_step.simulate(0.0, depth, target)
    assert outcome.survived is True and "converged after 1 steps" in outcome.measurement


def test_of_another_step_size_nothing_is_claimed():
    outcome = zas_depth_and_step.simulate(-2.0, 10, "−I")
    assert outcome.survived is None and outcome.verdict == "The claim is about η = 1; this run converges."


def test_the_predicted_edge_of_stability_separates_convergence_from_divergence():
    edge = 2 / (1 + 9)  # L = 10, s = 1
    below = zas_depth_and_step.simulate(math.log10(0.8 * edge), 10, "−I")
    above = zas_depth_and_step.simulate(math.log10(1.5 * edge), 10, "−I")
    assert (below.verdict[-19:], above.verdict[-22:]) == ("this run converges.", "run does not converge.")
    assert f"η ≈ {edge:.2g}" in below.prediction


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_on_the_ray_the_saddle_wins_and_a_smaller_first_weight_escapes(depth):
    on = zas_stable_manifold.simulate(depth=depth, common=1.0, offset=0.0)
    off = zas_stable_manifold.simulate(depth=depth, common=1.0, offset=-0.5)
    assert on.survived is True and on.measurement.startswith("the saddle region")
    assert off.survived is None and off.measurement.startswith("the global minimum")


def test_the_green_curve_holds_minima_and_the_path_starts_where_the_controls_say():
    outcome = zas_stable_manifold.simulate(depth=4, common=0.75, offset=0.2)
    curve, path = outcome.tables["minimum"], outcome.tables["path"]
    assert all(w * o**3 == pytest.approx(-1) for w, o in zip(curve["w1"], curve["others"], strict=True))
    assert (path["w1"][0], path["others"][0]) == (0.95, 0.75)


@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("depth", [1, 2, 100, 10_000])
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_up_to_the_sharp_step_size_nothing_overshoots(factor, depth, norm):
    outcome = sharp_rate.simulate(factor, depth, norm)
    assert outcome.survived is True and "no overshoot" in outcome.measurement


def test_beyond_the_sharp_step_size_nothing_is_claimed_and_deep_networks_overshoot_at_once():
    for factor in (1.05, 2.0):
        outcome = sharp_rate.simulate(factor, 10_000, 1.0)
        assert outcome.survived is None and "overshoots by" in outcome.measurement


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("block", [1, 4, 16])
def test_signals_walk_along_their_line_whatever_the_branches(block, branches):
    assert signal_growth.simulate(300, block, branches).survived is True


def test_a_xavier_start_leaves_both_formats_and_divided_branches_none():
    plain = signal_growth.simulate(2_500, 16, "as they are")
    assert "leaves float32" in plain.measurement and "float64" not in plain.measurement
    for branches in ("divided by √L", "divided by L", "zero, as in mZAS"):
        assert "inside float32" in signal_growth.simulate(2_500, 16, branches).measurement
