"""Everything lives on one device: that of its inputs or of its generator, and nothing falls back to torch's default.

Without a GPU this is seen in two ways. Under a mode in which a factory call that names no device fails, every public
callable runs once. And tensors on torch's ``meta`` device, which have shapes and no entries, come out where they went
in.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from test_doors import DOORS, TABLE, invoke, unbound

from firststep import chain, curvature, feedforward, inits, linear, scale, spectra, two_layer, zas

pytestmark = pytest.mark.usefixtures("tiny_cifar")
STARTUP = Path(__file__).parents[1] / "strict_device" / "profile_default" / "startup" / "00-name-the-device.py"


def load(path):
    spec = importlib.util.spec_from_file_location("name_the_device", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NamedDevice = load(STARTUP).NamedDevice


def test_the_mode_refuses_a_factory_call_without_a_device_and_takes_one_with():
    with NamedDevice():
        torch.zeros(2, device="cpu")
        with pytest.raises(RuntimeError, match="zeros must name its device"):
            torch.zeros(2)


@pytest.mark.parametrize("name", DOORS)
def test_every_door_names_the_device_of_what_it_makes(name):
    with NamedDevice():
        invoke(DOORS[name], *TABLE[unbound(DOORS[name])])


@pytest.mark.parametrize("function", [inits.generator, inits.generators])
def test_generators_live_on_the_device_of_the_scale_unless_told(function, clean_environment):
    found = function(3, device="cpu")
    for generator in found if isinstance(found, list) else [found]:
        assert generator.device == torch.device("cpu")
    clean_environment.setenv("FIRSTSTEP_DEVICE", "nowhere")
    with pytest.raises(ValueError, match="FIRSTSTEP_DEVICE must be"):
        function(3)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", 2**63, "", object()])
def test_a_device_that_torch_cannot_use_is_named(device):
    with pytest.raises(ValueError, match="device must be a"):
        zas.start((2, 2), device=device)


# The meta device


def meta(*shape, dtype=torch.float64):
    return torch.empty(*shape, dtype=dtype, device="meta")


def network(dtype):
    return [meta(5, 4, 3, dtype=dtype), meta(5, 2, 4, dtype=dtype)]


def run_of(dtype):
    return feedforward.forward(network(dtype), meta(5, 3, dtype=dtype), activation="tanh")


LAYERED = {
    "layer_gradient": (5, 4, 3),
    "preactivation_hessian": (5, 4, 4),
    "layer_hessian_norm": (5,),
}
FORMS = {"kept_form": (5,), "neglected_terms": (5, 2), "exact_form": (5,)}
CASES = {
    "linear.product": lambda t: (linear.product(network(t)), (5, 2, 3)),
    "linear.loss": lambda t: (linear.loss(network(t), moments(t)), (5,)),
    "linear.gradient": lambda t: (linear.gradient(network(t), moments(t))[0], (5, 4, 3)),
    "linear.Moments.residual": lambda t: (moments(t).residual(meta(2, 3, dtype=t)), (2, 3)),
    "feedforward.layer_jacobian": lambda t: (feedforward.layer_jacobian(run_of(t), 1), (5, 4, 3)),
    "feedforward.output_jacobians": lambda t: (feedforward.output_jacobians(run_of(t))[0], (5, 2, 4)),
    **{
        f"feedforward.{name}({loss})": lambda t, name=name, loss=loss, shape=shape: (
            getattr(feedforward, name)(meta(5, 3, dtype=t), meta(5, 3, dtype=t), loss), shape
        )
        for name, shape in {"loss_value": (5,), "loss_gradient": (5, 3), "loss_hessian": (5, 3, 3)}.items()
        for loss in feedforward.LOSSES
    },
    **{
        f"curvature.{name}": lambda t, name=name, shape=shape: (
            getattr(curvature, name)(run_of(t), meta(5, 2, dtype=t), 1), shape
        )
        for name, shape in LAYERED.items()
    },
    "curvature.tangent_kernel": lambda t: (curvature.tangent_kernel(run_of(t)), (5, 2, 2)),
    **{
        f"curvature.{name}": lambda t, name=name, shape=shape: (
            getattr(curvature, name)(run_of(t), meta(5, 2, dtype=t), 1, meta(5, 4, 3, dtype=t)), shape
        )
        for name, shape in FORMS.items()
    },
    **{
        f"chain.Chain.layer({normalization})": lambda t, normalization=normalization: (
            chain.Chain(1.0, normalization=normalization).layer(meta(2, 3, 3, dtype=t), meta(2, 3, 4, dtype=t)),
            (2, 3, 4),
        )
        for normalization in chain.NORMALIZATIONS
    },
    "chain.batch_norm": lambda t: (chain.batch_norm(meta(3, 4, dtype=t)), (3, 4)),
    "chain.State.stable_rank": lambda t: (chain.State(meta(2, 3, 4, dtype=t)).stable_rank(), (2,)),
    "spectra.stable_rank": lambda t: (spectra.stable_rank(meta(5, 3, 4, dtype=t)), (5,)),
    "spectra.rank_tolerance": lambda t: (spectra.rank_tolerance(meta(5, 3, 4, dtype=t)), (5,)),
    "spectra.regularity_terms": lambda t: (spectra.regularity_terms(meta(5, 3, 3, dtype=t))[1], (5,)),
    "spectra.frobenius_change": lambda t: (spectra.frobenius_change(meta(5, 3, 3, dtype=t)), (5,)),
    "two_layer.imbalance": lambda t: (two_layer.imbalance(network(t)), (5, 4, 4)),
    "zas.invariants": lambda t: (zas.invariants(network(t))[0], (5, 4, 4)),
}  # fmt: skip


def moments(dtype):
    return linear.Moments.of(meta(3, 9, dtype=dtype), meta(2, 9, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_results_live_where_the_inputs_live_with_their_shape_and_dtype(name, dtype):
    found, shape = CASES[name](dtype)
    assert found.is_meta and tuple(found.shape) == shape and found.dtype == dtype


@pytest.mark.parametrize("rank", [spectra.numerical_rank, lambda a: spectra.soft_rank(a, 0.5)])
def test_ranks_are_integers_where_the_matrices_live(rank):
    found = rank(meta(5, 30, 40))
    assert found.is_meta and found.shape == (5,) and found.dtype == torch.int64


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_starts_live_on_the_device_that_is_asked_for(device):
    assert all(w.device.type == device for w in zas.start((2, 3, 2), device=device))


def test_numbers_alone_live_on_the_device_of_the_scale(clean_environment):
    clean_environment.setenv("FIRSTSTEP_DEVICE", "meta")
    assert scale.device_of(1.0, 2) == torch.device("meta")
    assert scale.device_of(1.0, torch.ones(1, device="cpu")) == torch.device("cpu")
    assert zas.theorem_step_size(1.0, 3).is_meta
