"""The explorables of the chapter on curvature, against closed forms, random matrices and dense Hessian blocks."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import curvature as second_order
from firststep import hessian_products, inits, predicted_norms
from firststep.book.panels import depth_and_scheme as curvature

few = settings(max_examples=20, deadline=None)


# The closed forms


@given(k=st.integers(1, 60))
def test_the_edge_of_a_product_of_gaussians_is_that_of_the_fuss_catalan_law(k):
    assert math.isclose(predicted_norms.edge(k, 1.0), (k + 1) ** (k + 1) / k**k, rel_tol=1e-12)
    assert predicted_norms.edge(k, 1.0, orthogonal=True) == 1


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 1.0])
def test_one_pair_has_the_edge_of_marchenko_and_pastur(kept):
    # A Gaussian matrix with a share p of its columns: (1 + √p)².
    assert math.isclose(predicted_norms.edge(1, kept), (1 + math.sqrt(kept)) ** 2, rel_tol=1e-12)


def test_no_factor_has_norm_one():
    assert predicted_norms.edge(0, 0.5) == predicted_norms.edge(0, 1.0, orthogonal=True) == 1


@given(k=st.integers(1, 40), kept=st.floats(0.05, 1.0), orthogonal=st.booleans())
def test_the_edge_is_the_minimum_of_the_inverse_moment_series(k, kept, orthogonal):
    def z(psi):
        if orthogonal:
            return (1 + psi) / psi * ((kept + psi) / (1 + psi)) ** k
        return (1 + psi) * (kept + psi) ** k / psi

    found = predicted_norms.edge(k, kept, orthogonal=orthogonal)
    least = float(z(torch.logspace(-4, 6, 20_001, dtype=torch.float64)).min())
    assert found <= least * (1 + 1e-9)
    assert least <= found * (1 + 1e-4)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("k, kept", [(1, 0.5), (3, 0.5), (5, 0.5), (3, 1.0)])
def test_the_edge_is_the_squared_norm_of_a_large_random_product(k, kept, orthogonal):
    d, g = 400, torch.Generator().manual_seed(0)
    product = torch.eye(d, dtype=torch.float64)
    for _ in range(k):
        weight = inits.matrix("orthogonal" if orthogonal else "lecun_normal", d, d, generator=g)
        product = product @ weight
        product[:, torch.randperm(d, generator=g)[round(kept * d) :]] = 0
    found = float(torch.linalg.matrix_norm(product, 2)) ** 2
    # At d = 400 the edge is approached from below, within the order (k / d)^(2/3).
    assert found < predicted_norms.edge(k, kept, orthogonal=orthogonal) * 1.05
    assert found > predicted_norms.edge(k, kept, orthogonal=orthogonal) * 0.85


@given(d=st.integers(1, 300))
def test_signal_factors_by_hand(d):
    factor = curvature.signal_factor
    assert math.isclose(factor("Eq. (8)", d, "linear"), 1 / 4)
    assert math.isclose(factor("Glorot", d, "linear"), 1)
    assert math.isclose(factor("He", d, "relu"), 1)
    assert math.isclose(factor("orthogonal", d, "relu"), 1 / 2)


@given(depth=st.integers(1, 30), data=st.data())
def test_the_prediction_for_orthogonal_linear_networks_is_one_and_the_rule_is_glorots_divided_by_four_a_layer(
    depth, data
):
    layer = data.draw(st.integers(1, depth))
    assert curvature.predicted_norm("orthogonal", depth, layer, 8, "linear") == 1
    for activation in predicted_norms.KEPT:
        rule, glorot = (curvature.predicted_norm(s, depth, layer, 8, activation) for s in ("Eq. (8)", "Glorot"))
        assert math.isclose(rule * 4 ** (depth - 1), glorot, rel_tol=1e-9)


# What is measured


@few
@given(
    depth=st.integers(1, 4), width=st.integers(2, 6), scheme=st.sampled_from(sorted(curvature.SCHEMES)),
    activation=st.sampled_from(sorted(predicted_norms.KEPT)),
)  # fmt: skip
def test_layer_norms_are_those_of_the_dense_hessian_blocks(depth, width, scheme, activation):
    run = curvature.draw(scheme, depth, width, activation, seeds=2)
    norms = curvature.layer_norms(run)
    target = torch.ones(2, width, dtype=torch.float64)
    for layer in range(1, depth + 1):
        torch.testing.assert_close(norms[layer - 1], second_order.layer_hessian_norm(run, target, layer))
        for seed in range(2):
            dense = hessian_products.dense_layer_hessian(run.draw(seed), target[seed], layer)
            exact = torch.linalg.eigvalsh(dense).abs().max()
            torch.testing.assert_close(norms[layer - 1, seed], exact, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_halving_the_weights_divides_every_norm_by_four_to_the_number_of_other_layers(activation):
    # The rule is half of Glorot's scale on square layers, and the same generator draws both.
    norms = [curvature.layer_norms(curvature.draw(scheme, 7, 12, activation)) for scheme in ("Eq. (8)", "Glorot")]
    torch.testing.assert_close(norms[0] * 4.0**6, norms[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "scheme, activation", list(itertools.product(sorted(curvature.SCHEMES), sorted(predicted_norms.KEPT)))
)
def test_norms_of_wide_shallow_networks_are_as_predicted(scheme, activation):
    run = curvature.draw(scheme, 4, 256, activation)
    for layer, norm in enumerate(curvature.layer_norms(run).mean(-1).tolist(), start=1):
        closed = curvature.predicted_norm(scheme, 4, layer, 256, activation)
        assert 0.8 < norm / closed < 1.15


@pytest.mark.parametrize("depth", [2, 10, 20])
def test_orthogonal_linear_networks_survive_at_every_depth_to_round_off(depth):
    outcome = curvature.depth_and_scheme.simulate(depth, 16, "orthogonal", "linear")
    assert outcome.survived is True
    assert max(abs(norm - 1) for norm in outcome.tables["norms"]["norm"]) < 1e-12


def test_the_rule_breaks_with_depth_and_so_do_orthogonal_weights_under_relu():
    for scheme, activation in (("Eq. (8)", "linear"), ("Eq. (8)", "relu"), ("orthogonal", "relu")):
        outcome = curvature.depth_and_scheme.simulate(10, 64, scheme, activation)
        assert outcome.survived is False and "miss the aim" in outcome.verdict


@pytest.mark.parametrize("scheme", ["Glorot", "He"])
def test_the_claim_is_silent_where_jacobians_are_not_about_one(scheme):
    outcome = curvature.depth_and_scheme.simulate(6, 64, scheme, "linear")
    assert outcome.survived is None and "aim" not in outcome.prediction


def test_known_mid_layer_norms_of_the_rule_at_width_64():
    for depth, low, high in ((10, 3e-5, 8e-5), (20, 2e-11, 1.2e-10)):
        norms = curvature.layer_norms(curvature.draw("Eq. (8)", depth, 64, "linear", seeds=20))
        assert low < float(norms[depth // 2 - 1].median()) < high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predicted_norms.edge(-1, 0.5), "pairs must be a non-negative integer"),
        (lambda: predicted_norms.edge(2, 0.0), r"kept must be in \(0, 1\]"),
        (lambda: curvature.predicted_norm("He", 3, 4, 8, "relu"), "layer must be an integer between 1 and 3"),
        (lambda: curvature.signal_factor("He", 0, "relu"), "width must be a positive integer"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
