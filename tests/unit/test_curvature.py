"""Second derivatives in one layer's weights, against dense automatic differentiation and closed forms."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import curvature, feedforward, hessian_products, inits, predicted_norms
from firststep.feedforward import ACTIVATIONS, LOSSES

DOUBLE = {"dtype": torch.float64}
PIECEWISE = [name for name, a in ACTIVATIONS.items() if a.piecewise_linear]
WIDTHS = [(3, 2), (1, 1, 1), (4, 5, 3), (3, 1, 4, 2), (2, 6, 6, 6, 3)]

networks = settings(max_examples=40)
seeds = st.integers(0, 10**6)
widths = st.lists(st.integers(1, 6), min_size=2, max_size=5).map(tuple)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(shape, activation="relu", *, biased=True, samples=None, draws=None, seed=0, scale=1.0, dtype=torch.float64):
    """A pass of Gaussian weights, inputs and biases, with a target that serves both losses."""
    g, lead, n = generator(seed), draws or (), () if samples is None else (samples,)
    weights = [scale * torch.randn(*lead, b, a, generator=g, **DOUBLE) for a, b in itertools.pairwise(shape)]
    biases = [torch.randn(*lead, b, generator=g, **DOUBLE) for b in shape[1:]] if biased else None
    x = torch.randn(*lead, *n, shape[0], generator=g, **DOUBLE)
    target = torch.randn(*lead, *n, shape[-1], generator=g, **DOUBLE).softmax(-1)
    weights, biases = [w.to(dtype) for w in weights], biases and [b.to(dtype) for b in biases]
    run = feedforward.forward(weights, x.to(dtype), biases=biases, activation=activation, samples=samples is not None)
    return run, target.to(dtype)


def directions(run, layer, *lead, seed=1):
    return torch.randn(*lead, *run.weights[layer - 1].shape[-2:], generator=generator(seed), **DOUBLE)


def spectral(block):
    return torch.linalg.eigvalsh(block).abs().max()


def every_layer(run):
    return range(1, run.depth + 1)


def close(a, b, rtol=1e-8, atol=1e-14):
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


# Activations and losses


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations_are_those_of_autograd(name):
    u = torch.cat([torch.linspace(-9, 9, 61, **DOUBLE)[:30], torch.tensor([0.3, 50.0, -50.0], **DOUBLE)])
    function = ACTIVATIONS[name]
    first = torch.func.vmap(torch.func.grad(function.f))
    second = torch.func.vmap(torch.func.grad(torch.func.grad(function.f)))
    close(function.first(u), first(u), rtol=1e-12)
    close(function.second(u), second(u), rtol=1e-10)
    assert function.first(u).dtype == function.second(u).dtype == u.dtype
    assert function.piecewise_linear == bool((second(u) == 0).all())


def test_shifted_softplus_keeps_its_precision_near_the_origin_and_does_not_overflow():
    f = ACTIVATIONS["softplus"].f
    small = torch.tensor([1e-18, -1e-12, 1e-6], dtype=torch.float64)
    series = small / 2 + small.square() / 8
    assert torch.allclose(f(small), series, rtol=1e-12, atol=0)
    large = torch.tensor([1000.0, -1000.0, 0.0], dtype=torch.float64)
    assert torch.allclose(f(large), torch.tensor([1000 - math.log(2), -math.log(2), 0.0], dtype=torch.float64))
    u = torch.tensor([-800.0, -1.0, 0.0, 1.0, 800.0], dtype=torch.float64, requires_grad=True)
    assert torch.allclose(torch.autograd.grad(f(u).sum(), u)[0], torch.sigmoid(u.detach()), atol=1e-15)


def test_only_sigmoid_misses_the_origin_and_only_softplus_bends_there():
    zero = torch.zeros(1, **DOUBLE)
    assert {n: float(a.f(zero)) for n, a in ACTIVATIONS.items() if a.f(zero) != 0} == {"sigmoid": 0.5}
    assert {n: float(a.second(zero)) for n, a in ACTIVATIONS.items() if a.second(zero) != 0} == {"softplus": 0.25}


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_of_losses_are_those_of_autograd(loss):
    z, t = (
        torch.randn(5, generator=generator(), **DOUBLE),
        torch.randn(5, generator=generator(1), **DOUBLE).softmax(-1),
    )
    close(feedforward.loss_gradient(z, t, loss), torch.func.grad(feedforward.loss_value)(z, t, loss), rtol=1e-12)
    close(
        feedforward.loss_hessian(z, t, loss),
        torch.autograd.functional.hessian(lambda v: feedforward.loss_value(v, t, loss), z),
        rtol=1e-12,
    )


def test_cross_entropy_is_that_of_torch_for_class_numbers():
    z, t = torch.randn(7, 4, generator=generator(), **DOUBLE), torch.tensor([0, 3, 1, 2, 2, 0, 3])
    expected = torch.nn.functional.cross_entropy(z, t, reduction="none")
    close(feedforward.loss_value(z, t, "cross_entropy"), expected, rtol=1e-12)


# The pass


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_jacobians_are_those_of_autograd(shape, activation):
    run, _ = problem(shape, activation)
    found = feedforward.output_jacobians(run)

    def above(layer):
        def network(z):
            rest = run.weights[layer:], z, run.biases[layer:]
            return feedforward.forward(rest[0], rest[1], biases=rest[2], activation=activation).z[-1] if rest[0] else z

        return network

    for layer in every_layer(run):
        close(found[layer - 1], torch.autograd.functional.jacobian(above(layer), run.z[layer]), rtol=1e-12)
        product = found[layer - 1] @ feedforward.layer_jacobian(run, layer)
        close(product, torch.autograd.functional.jacobian(above(layer - 1), run.z[layer - 1]), rtol=1e-12)


def test_a_linear_read_out_is_an_activation_of_its_own():
    run, _ = problem((3, 4, 2), ("tanh", "linear"))
    hidden = torch.tanh(run.weights[0] @ run.z[0] + run.biases[0])
    close(run.z[-1], run.weights[1] @ hidden + run.biases[1], rtol=1e-14)
    assert run.activations == ("tanh", "linear") and not run.piecewise_linear
    assert problem((3, 4, 2), ("leaky_relu", "linear"))[0].piecewise_linear


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_a_batch_of_draws_equals_its_draws(samples, activation):
    run, t = problem((3, 4, 2), activation, draws=(2, 3), samples=samples)
    g = directions(run, 1, 2, 3)
    batch = [
        curvature.layer_gradient(run, t, 1),
        *curvature.kronecker_factors(run, t, 1),
        curvature.kept_form(run, t, 1, g),
        curvature.exact_form(run, t, 1, g),
        curvature.preactivation_hessian(run, t, 1),
        curvature.layer_hessian_norm(run, t, 1),
        curvature.layer_hessian_norm(run, t, 1, loss="cross_entropy", kept=True),
    ]
    for index in [(0, 0), (1, 2)]:
        one, own = run.draw(index), t[index]
        singles = [
            curvature.layer_gradient(one, own, 1),
            *curvature.kronecker_factors(one, own, 1),
            curvature.kept_form(one, own, 1, g[index]),
            curvature.exact_form(one, own, 1, g[index]),
            curvature.preactivation_hessian(one, own, 1),
            curvature.layer_hessian_norm(one, own, 1),
            curvature.layer_hessian_norm(one, own, 1, loss="cross_entropy", kept=True),
        ]
        for many, single in zip(batch, singles, strict=True):
            close(many[index], single, rtol=1e-12)


def test_weights_with_draws_take_one_input_for_all():
    run, t = problem((3, 4, 2), draws=(5,))
    shared = feedforward.forward(run.weights, run.z[0][0], biases=run.biases, activation="relu")
    assert shared.draws == (5,)
    left, right = curvature.kronecker_factors(shared, t, 1)
    assert left.shape == (5, 4, 4) and right.shape == (5, 3)
    close(left[0], curvature.kronecker_factors(run, t, 1)[0][0])
    close(shared.draw(0).z[0], run.z[0][0])


# Gradient and quadratic forms


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("samples", [None, 4])
def test_exact_form_is_the_form_of_the_dense_hessian(activation, loss, samples):
    for seed, shape in enumerate(WIDTHS):
        run, t = problem(shape, activation, samples=samples, seed=seed)
        for layer in every_layer(run):
            block = hessian_products.dense_layer_hessian(run, t, layer, loss=loss)
            g = directions(run, layer, 6)
            expected = torch.einsum("ki,ij,kj->k", g.flatten(1), block, g.flatten(1))
            close(curvature.exact_form(run, t, layer, g, loss=loss), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("samples", [None, 4])
def test_layer_gradient_is_that_of_autograd(loss, samples):
    run, t = problem((3, 4, 4, 2), ("tanh", "relu", "softplus"), samples=samples)
    for layer in every_layer(run):

        def value(weight, layer=layer):
            weights = [*run.weights[: layer - 1], weight, *run.weights[layer:]]
            other = feedforward.forward(
                weights, run.z[0], biases=run.biases, activation=run.activations, samples=run.samples
            )
            return feedforward.loss_value(other.z[-1], t, loss).mean()

        weight = run.weights[layer - 1]
        expected = torch.autograd.functional.jacobian(value, weight)
        close(curvature.layer_gradient(run, t, layer, loss=loss), expected, rtol=1e-11)


@networks
@given(widths, st.sampled_from(PIECEWISE), st.sampled_from(LOSSES), seeds)
def test_nothing_is_neglected_without_curvature(shape, activation, loss, seed):
    run, t = problem(shape, activation, seed=seed)
    for layer in every_layer(run):
        assert (curvature.neglected_terms(run, t, layer, directions(run, layer, 3), loss=loss) == 0).all()


@networks
@given(widths, st.sampled_from(list(ACTIVATIONS)), st.sampled_from(LOSSES), seeds, st.floats(-4, 4))
def test_forms_are_quadratic_and_the_kept_one_is_never_negative(shape, activation, loss, seed, factor):
    run, t = problem(shape, activation, seed=seed)
    for layer in every_layer(run):
        g = directions(run, layer, seed=seed)
        for form in (curvature.kept_form, curvature.exact_form):
            close(form(run, t, layer, factor * g, loss=loss), factor**2 * form(run, t, layer, g, loss=loss), atol=1e-10)
        assert curvature.kept_form(run, t, layer, g, loss=loss) >= 0


@networks
@given(widths, st.sampled_from(list(ACTIVATIONS)), st.sampled_from(LOSSES), seeds)
def test_kept_form_is_the_form_of_the_kronecker_product(shape, activation, loss, seed):
    run, t = problem(shape, activation, seed=seed)
    for layer in every_layer(run):
        left, right = curvature.kronecker_factors(run, t, layer, loss=loss)
        g = directions(run, layer, seed=seed)
        block = torch.kron(left, torch.outer(right, right))
        close(curvature.kept_form(run, t, layer, g, loss=loss), g.flatten() @ block @ g.flatten(), atol=1e-11)


def test_a_perfect_fit_neglects_nothing_under_squared_loss():
    run, _ = problem((3, 4, 2), "tanh")
    g = directions(run, 1)
    assert (curvature.neglected_terms(run, run.z[-1], 1, g) == 0).all()


def test_scalar_tanh_has_the_hessian_of_calculus():
    # L = ½ (tanh(w x) − t)², so L″ in w is x² (f′² + (f − t) f″).
    w, x, t = (torch.tensor(v, **DOUBLE) for v in (0.7, 1.3, -0.4))
    run = feedforward.forward([w.reshape(1, 1)], x.reshape(1), activation="tanh")
    f, one = torch.tanh(w * x), torch.ones(1, 1, **DOUBLE)
    slope = 1 - f**2
    close(curvature.kept_form(run, t.reshape(1), 1, one), x**2 * slope**2, rtol=1e-14)
    close(curvature.neglected_terms(run, t.reshape(1), 1, one)[0], x**2 * (f - t) * -2 * f * slope, rtol=1e-14)


# Norms


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("samples", [None, 1, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_layer_hessian_norm_is_that_of_the_dense_hessian(activation, loss, samples, biased):
    for seed, shape in enumerate(WIDTHS):
        run, t = problem(shape, activation, biased=biased, samples=samples, seed=seed)
        for layer in every_layer(run):
            expected = spectral(hessian_products.dense_layer_hessian(run, t, layer, loss=loss))
            close(curvature.layer_hessian_norm(run, t, layer, loss=loss), expected)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("samples", [None, 4])
def test_lanczos_norm_is_that_of_the_dense_hessian(activation, loss, samples):
    for seed, shape in enumerate(WIDTHS):
        run, t = problem(shape, activation, samples=samples, seed=seed)
        for layer in every_layer(run):
            expected = spectral(hessian_products.dense_layer_hessian(run, t, layer, loss=loss))
            close(hessian_products.lanczos_norm(run, t, layer, loss=loss, generator=generator()), expected)


@pytest.mark.parametrize("activation", PIECEWISE)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_whole_block_is_a_kronecker_product_without_curvature(activation, loss):
    for seed, shape in enumerate(WIDTHS):
        run, t = problem(shape, activation, seed=seed)
        for layer in every_layer(run):
            left, right = curvature.kronecker_factors(run, t, layer, loss=loss)
            expected = hessian_products.dense_layer_hessian(run, t, layer, loss=loss)
            close(torch.kron(left, torch.outer(right, right)), expected, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_exact_block_of_one_sample_is_a_kronecker_product_for_every_activation(activation, loss):
    for seed, shape in enumerate(WIDTHS):
        run, t = problem(shape, activation, seed=seed)
        for layer in every_layer(run):
            left = curvature.preactivation_hessian(run, t, layer, loss=loss)
            z = run.z[layer - 1]
            expected = hessian_products.dense_layer_hessian(run, t, layer, loss=loss)
            close(torch.kron(left, torch.outer(z, z)), expected, atol=1e-12)


@pytest.mark.parametrize("samples", [None, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_kept_norm_is_that_of_the_mean_of_kronecker_products(samples, loss):
    run, t = problem((3, 4, 4, 2), "tanh", samples=samples)
    for layer in every_layer(run):
        left, right = curvature.kronecker_factors(run, t, layer, loss=loss)
        left, right = left.reshape(-1, *left.shape[-2:]), right.reshape(-1, right.shape[-1])
        block = torch.stack([torch.kron(a, torch.outer(b, b)) for a, b in zip(left, right, strict=True)]).mean(0)
        close(curvature.layer_hessian_norm(run, t, layer, loss=loss, kept=True), spectral(block))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_operator_is_the_dense_hessian(activation):
    run, t = problem((3, 4, 2), activation, samples=3)
    for layer in every_layer(run):
        operator = hessian_products.layer_hessian_operator(run, t, layer, loss="cross_entropy")
        block = hessian_products.dense_layer_hessian(run, t, layer, loss="cross_entropy")
        assert operator.shape == tuple(block.shape) and operator.dtype == block.numpy().dtype
        close(operator @ torch.eye(len(block), **DOUBLE).numpy(), block, atol=1e-12)


def test_orthogonal_networks_have_unit_norm_for_unit_input():
    weights = inits.network((8,) * 31, "orthogonal", generator=inits.generators(4))
    x = torch.nn.functional.normalize(torch.randn(8, generator=generator(), **DOUBLE), dim=0)
    run = feedforward.forward(weights, x)
    for layer in (1, 15, 30):
        norms = curvature.layer_hessian_norm(run, torch.zeros(8, **DOUBLE), layer)
        close(norms, torch.ones(4), rtol=1e-12)


@networks
@given(st.lists(st.floats(0.2, 3), min_size=1, max_size=6), st.floats(0.1, 5), st.data())
def test_a_linear_chain_of_scalars_has_the_squared_product_of_the_others(chain, x, data):
    layer = data.draw(st.integers(1, len(chain)))
    run = feedforward.forward([torch.tensor([[w]], **DOUBLE) for w in chain], torch.tensor([x], **DOUBLE))
    expected = (x * math.prod(chain) / chain[layer - 1]) ** 2
    close(curvature.layer_hessian_norm(run, torch.zeros(1, **DOUBLE), layer), torch.tensor(expected, **DOUBLE), 1e-12)


@networks
@given(widths, seeds, st.floats(0.1, 10))
def test_the_norm_is_quadratic_in_the_input_of_a_network_without_biases(shape, seed, factor):
    run, t = problem(shape, "relu", biased=False, seed=seed)
    scaled = feedforward.forward(run.weights, factor * run.z[0], activation="relu")
    for layer in every_layer(run):
        expected = factor**2 * curvature.layer_hessian_norm(run, t, layer)
        close(curvature.layer_hessian_norm(scaled, t, layer), expected)


@pytest.mark.parametrize("samples", [None, 3])
def test_many_targets_can_share_one_network(samples):
    run, _ = problem((3, 4, 2), "tanh", samples=samples)
    targets = torch.randn(5, *run.z[-1].shape, generator=generator(), **DOUBLE)
    norms = curvature.layer_hessian_norm(run, targets, 1)
    close(norms, torch.stack([curvature.layer_hessian_norm(run, t, 1) for t in targets]))


def test_a_linear_network_multiplies_by_the_second_moment_of_the_samples():
    run, t = problem((3, 4, 2), "linear", biased=False, samples=7)
    product = run.weights[1]
    second_moment = run.z[0].mT @ run.z[0] / 7
    expected = torch.linalg.matrix_norm(product.mT @ product, ord=2) * torch.linalg.matrix_norm(second_moment, ord=2)
    close(curvature.layer_hessian_norm(run, t, 1), expected)


def test_a_dead_layer_has_no_hessian():
    weights = [torch.ones(3, 2, **DOUBLE), torch.ones(2, 3, **DOUBLE)]
    run = feedforward.forward(weights, -torch.ones(2, **DOUBLE), activation="relu")
    t = torch.ones(2, **DOUBLE)
    assert curvature.layer_hessian_norm(run, t, 1) == 0
    assert hessian_products.lanczos_norm(run, t, 1, generator=generator()) == 0


def test_float32_agrees_with_float64():
    for activation in ("relu", "tanh"):
        run, t = problem((5, 6, 6, 3), activation)
        single, t32 = problem((5, 6, 6, 3), activation, dtype=torch.float32)
        for layer in every_layer(run):
            norm = curvature.layer_hessian_norm(single, t32, layer, kept=True)
            assert norm.dtype == torch.float32
            close(norm.double(), curvature.layer_hessian_norm(run, t, layer, kept=True), rtol=1e-4)
            found = hessian_products.lanczos_norm(single, t32, layer, generator=generator())
            close(found, hessian_products.lanczos_norm(run, t, layer, generator=generator()), rtol=1e-3)
            g = directions(run, layer)
            form = curvature.exact_form(single, t32, layer, g.float())
            assert form.dtype == torch.float32
            close(form.double(), curvature.exact_form(run, t, layer, g), rtol=1e-3, atol=1e-4)


# Errors


def bad(message):
    return pytest.raises(ValueError, match=re.escape(message))


def test_forward_names_what_is_wrong():
    w, x = [torch.ones(3, 2, **DOUBLE), torch.ones(2, 3, **DOUBLE)], torch.ones(2, **DOUBLE)
    for x_bad, message in [
        (torch.ones(3, **DOUBLE), "x must have shape (..., 2), got x of shape (3,)"),
        (torch.ones(2), "x must have the dtype of the weights, torch.float64, got x of dtype torch.float32"),
        (torch.tensor([1.0, math.nan], **DOUBLE), "x must have finite entries only, got x with nan or inf"),
        ([1.0, 2.0], "x must be a torch.Tensor, got x of type list"),
    ]:
        with bad(message):
            feedforward.forward(w, x_bad)
    with bad("x must have shape (..., n, 2), got x of shape (2,)"):
        feedforward.forward(w, x, samples=True)
    with bad("samples must be True or False, got samples=3"):
        feedforward.forward(w, x, samples=3)
    with bad("weights must chain, W_l of shape (..., d_l, d_(l-1)), got weights of shapes [(3, 2), (3, 2)]"):
        feedforward.forward([w[0], w[0]], x)
    with bad("activation must be one of leaky_relu, linear, relu, sigmoid, softplus, tanh, got activation='gelu'"):
        feedforward.forward(w, x, activation="gelu")
    with bad("activation must be one name, or one for each of the 2 layers, got activation=('relu',)"):
        feedforward.forward(w, x, activation=("relu",))
    with bad("biases must be None, or one vector for each of the 2 layers, got biases=[]"):
        feedforward.forward(w, x, biases=[])
    with bad("biases[b_2] must have shape (..., 2), got biases[b_2] of shape (3,)"):
        feedforward.forward(w, x, biases=[torch.ones(3, **DOUBLE)] * 2)
    with bad("weights, biases and x must have leading axes that broadcast"):
        feedforward.forward([torch.ones(4, 3, 2, **DOUBLE), w[1]], torch.ones(5, 2, **DOUBLE))


def test_layer_functions_name_what_is_wrong():
    run, t = problem((2, 3, 2), "relu")
    for layer in (0, 3, 1.0, True):
        with bad(f"layer must be an integer between 1 and 2, got layer={layer!r}"):
            curvature.layer_hessian_norm(run, t, layer)
    with bad("run must be the Pass that forward() returns, got run=3"):
        feedforward.layer_jacobian(3, 1)
    with bad("loss must be one of cross_entropy, squared, got loss='hinge'"):
        curvature.layer_gradient(run, t, 1, loss="hinge")
    with bad("target must have shape (..., 2), got target of shape (3,)"):
        curvature.kronecker_factors(run, torch.ones(3, **DOUBLE), 1)
    with bad("target must be probabilities that sum to one"):
        curvature.kronecker_factors(run, torch.ones(2, **DOUBLE), 1, loss="cross_entropy")
    with bad("target must be class numbers from 0 to 1, got target=2"):
        feedforward.loss_value(run.z[-1], torch.tensor(2), "cross_entropy")
    with bad("g must have shape (..., 3, 2) like W_1, got g of shape (2, 3)"):
        curvature.kept_form(run, t, 1, torch.ones(2, 3, **DOUBLE))
    with bad("g must have the dtype of the weights, torch.float64, got g of dtype torch.float32"):
        curvature.exact_form(run, t, 1, torch.ones(3, 2))
    with bad("tol must be a number of at least 0, got tol=-1"):
        hessian_products.lanczos_norm(run, t, 1, generator=generator(), tol=-1)
    with bad("generator must be a torch.Generator, got generator=0"):
        hessian_products.lanczos_norm(run, t, 1, generator=0)
    with bad("kept must be True or False, got kept=1"):
        curvature.layer_hessian_norm(run, t, 1, kept=1)


def test_operators_are_of_one_draw():
    run, t = problem((2, 3, 2), draws=(4,))
    for function in (hessian_products.layer_hessian_operator, hessian_products.dense_layer_hessian):
        with bad("run must be a pass of one draw, without leading axes: use run.draw(...), got run=(4,)"):
            function(run, t, 1)
    for index in (4, (0, 0), "0"):
        with bad("index must be one integer for each of the leading axes (4,)"):
            run.draw(index)


# Closed forms at large width


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_all_layer_norms_at_once_are_those_of_the_layers(activation):
    run, target = problem((3, 5, 4, 2), activation, draws=(3,))
    each = [curvature.layer_hessian_norm(run, target, layer) for layer in (1, 2, 3)]
    torch.testing.assert_close(curvature.layer_norms(run), torch.stack(each))


def test_one_input_a_draw_is_asked_for_where_samples_have_no_norm_of_their_own():
    run, _ = problem((3, 4, 2), "relu", samples=5)
    with bad("run must be a pass of one input a draw"):
        curvature.layer_norms(run)


def test_predicted_norms_by_hand():
    # He's relu keeps the signal, and one linear layer over one projection has the edge (1 + √½)² of Marchenko-Pastur.
    assert predicted_norms.signal_factor("he_normal", 7, "relu") == pytest.approx(1)
    assert predicted_norms.predicted_norm("he_normal", 2, 2, 7, "relu") == pytest.approx(1)
    expected = 2 * (1 + 0.5**0.5) ** 2
    assert predicted_norms.predicted_norm("he_normal", 2, 1, 7, "relu") == pytest.approx(expected)


# All layers together


def dense_gauss_newton(run, loss):
    """JᵀHJ of the outputs in all weights, mean over samples, by automatic differentiation."""
    sizes = [w.numel() for w in run.weights]

    def outputs(flat):
        weights = [part.reshape(w.shape) for part, w in zip(flat.split(sizes), run.weights, strict=True)]
        return feedforward.forward(
            weights, run.z[0], biases=run.biases, activation=run.activations, samples=run.samples
        ).z[-1]

    flat = torch.cat([w.flatten() for w in run.weights])
    jacobian = torch.func.jacrev(outputs)(flat).reshape(-1, run.z[-1].shape[-1], len(flat))
    z = run.z[-1].reshape(-1, run.z[-1].shape[-1])
    h = feedforward.loss_hessian(z, torch.full_like(z, 1 / z.shape[-1]), loss)
    return (jacobian.mT @ h @ jacobian).mean(0)


@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_the_tangent_kernel_has_the_nonzero_spectrum_of_the_gauss_newton_matrix(activation, loss, samples):
    run, _ = problem((3, 5, 4, 2), activation, samples=samples)
    kernel = torch.linalg.eigvalsh(curvature.tangent_kernel(run, loss=loss))
    close(torch.linalg.eigvalsh(dense_gauss_newton(run, loss))[-len(kernel) :], kernel, rtol=1e-9, atol=1e-12)


def test_a_batch_of_kernels_equals_its_draws():
    for samples in (None, 2):
        run, _ = problem((3, 4, 2), "tanh", draws=(3,), samples=samples)
        kernels = curvature.tangent_kernel(run, loss="cross_entropy")
        for i in range(3):
            close(kernels[i], curvature.tangent_kernel(run.draw(i), loss="cross_entropy"), rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_orthogonal_linear_networks_have_the_depth_as_their_largest_eigenvalue(depth):
    weights = inits.network([6] * (depth + 1), "orthogonal", generator=inits.generators(2))
    run = feedforward.forward(weights, torch.eye(6, **DOUBLE)[:2])
    close(torch.linalg.eigvalsh(curvature.tangent_kernel(run)), torch.full((2, 6), float(depth)), rtol=1e-12)


# The limit of large width


def test_the_edge_of_two_gaussian_layers_by_hand():
    close(predicted_norms.gauss_newton_norm("xavier_normal", 2, 64, "linear"), 5.0)  # 1 + the edge of W Wᵀ
    close(predicted_norms.gauss_newton_norm("curvature_normal", 2, 64, "linear"), 5 / 4)
    close(predicted_norms.gauss_newton_norm("he_normal", 2, 64, "relu"), 1 + 2 * (1 + math.sqrt(0.5)) ** 2)
    assert predicted_norms.gauss_newton_norm("xavier_normal", 1, 64, "linear") == 1


def test_the_edge_of_the_kernel_grows_as_the_square_of_the_depth():
    # log z_k has the second difference 1/z_k, so z ~ (k² cosh² x)/(2x²) at its least, where x tanh x = 1.
    x = 1.1996786402577339
    found = predicted_norms.gauss_newton_norm("xavier_normal", 3_000, 64, "linear") / 3_000**2
    assert abs(found / (math.cosh(x) ** 2 / (2 * x**2)) - 1) < 1e-3


@pytest.mark.parametrize("scheme", ["xavier_normal", "orthogonal"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("depth", [2, 4])
def test_the_kernel_of_a_wide_network_has_the_predicted_edge(scheme, activation, depth):
    weights = inits.network([200] * (depth + 1), scheme, generator=inits.generators(6))
    x = torch.randn(6, 200, generator=generator(1), **DOUBLE)
    names = (activation,) * (depth - 1) + ("linear",)
    run = feedforward.forward(weights, x / x.norm(dim=-1, keepdim=True), activation=names)
    largest = torch.linalg.eigvalsh(curvature.tangent_kernel(run))[:, -1].mean()
    ratio = float(largest) / predicted_norms.gauss_newton_norm(scheme, depth, 200, activation)
    assert 0.85 < ratio < 1.06


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_the_edge_of_a_jacobian_of_ones_and_zeros_is_that_of_marchenko_and_pastur(share):
    close(predicted_norms.jacobian_edge([1.0, 0.0], [share, 1 - share]), (1 + math.sqrt(share)) ** 2)


def test_the_edge_of_a_jacobian_is_the_squared_norm_of_a_wide_layer():
    slopes = torch.linspace(0.1, 1, 400, **DOUBLE)
    weight = torch.randn(400, 400, generator=generator(), **DOUBLE) / 20
    found = torch.linalg.matrix_norm(slopes[:, None] * weight, 2).square()
    assert abs(float(found) / predicted_norms.jacobian_edge(slopes.numpy()) - 1) < 0.03
    close(predicted_norms.jacobian_edge(3 * slopes.numpy()), 9 * predicted_norms.jacobian_edge(slopes.numpy()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predicted_norms.jacobian_edge([0.0]), "slopes must be"),
        (lambda: predicted_norms.jacobian_edge([1.0], [1.0, 2.0]), "weights must be"),
        (lambda: predicted_norms.gauss_newton_norm("he_normal", 0, 8, "relu"), "depth must be"),
        (lambda: curvature.tangent_kernel(problem((3, 2))[0], loss="hinge"), "loss must be"),
    ],
)
def test_doors_of_the_kernel_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
