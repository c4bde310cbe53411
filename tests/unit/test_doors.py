"""Every public callable of the mathematics, called with foreign values: an error that names the argument, or a result.

``CALLS`` holds a valid call of each; a new public callable without one fails the first test. Then each argument in turn
gets values that no one means. Neither another exception than ``ValueError`` comes out, nor a number that is not
finite, nor nothing for a long time.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import firststep
from firststep import (
    chain,
    cifar,
    constant_step,
    convnets,
    curvature,
    ensembles,
    feedforward,
    finite_field,
    fitting,
    flow,
    hessian_products,
    images,
    inits,
    linear,
    linear_tasks,
    lyapunov,
    nets,
    one_layer,
    predicted_norms,
    report,
    residual,
    residual_growth,
    saddles,
    scale,
    spectra,
    step_counts,
    training,
    two_layer,
    wide,
    wide_kernel,
    zas,
)

F64 = {"dtype": torch.float64, "device": "cpu"}
NOT_DOORS = {"checks"}  # the doorkeepers: they are given anything
RESULTS = {  # what functions return: made by them, not by users
    chain.State, chain.DepthAverage, ensembles.Ensemble, ensembles.History, feedforward.Activation, feedforward.Pass,
    flow.Flow, images.Images, constant_step.Trained, wide_kernel.Limit,
    linear.Descent, linear_tasks.LinearTask, report.Estimate, step_counts.Count, training.RankRecord, two_layer.Problem,
    residual.Start, residual.Descent, zas.Pairs, zas.Target, images.DataError, convnets.ConvNet, fitting.Fit,
}  # fmt: skip
# What a run that diverges returns is infinite or nan, and says so.
DIVERGES = {zas.recursion, linear.gradient_descent, flow.gradient_flow, training.raise_rank, nets.MLP.forward}
DIVERGES |= {
    nets.MLP.representations,
    fitting.fit,
    nets.UncentredBatchNorm1d.forward,
    ensembles.sgd,
    ensembles.stable_rank,
}
DIVERGES |= {ensembles.Ensemble.outputs, ensembles.Ensemble.representations}
DIVERGES |= {constant_step.train}
DIVERGES |= {residual.ResidualMLP.forward, residual.ResidualMLP.norms, residual.descend}


def seed():
    return torch.Generator("cpu").manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=seed(), **F64)


def mlp():
    return nets.initialize_(nets.MLP(3, 4, 2, 1, device="cpu"), "he_normal", generator=seed())


def ensemble():
    return ensembles.Ensemble.of([mlp(), mlp()])


def trained():
    labels = torch.zeros(5, dtype=torch.int64, device="cpu")
    options = {"step_sizes": [0.1, 0.2], "steps": 2, "batch_size": 2, "generators": inits.generators(2, device="cpu")}
    return {"ensemble": ensemble(), "x": torch.ones(5, 3, device="cpu"), "y": labels} | options


def vgg():
    return nets.initialize_(convnets.VGG19(1 / 32, at_most=1, device="cpu"), "he_normal", generator=seed())


def residual_net():
    net = residual.ResidualMLP(3, 4, 2, 2, 2, dtype=torch.float64, device="cpu")
    return residual.start_(net, "xavier", generator=seed())


def two_layers():
    return [randn(3, 3), randn(2, 3)]


def problem():
    return two_layer.Problem.of(randn(4, 3), randn(2, 3))


def passed(**options):
    return feedforward.forward([randn(3, 2), randn(2, 3)], randn(2), activation="tanh", **options)


def field(rows, columns):
    return finite_field.random_matrix(rows, columns, np.random.default_rng(0))


def moments():
    return linear.Moments.of(randn(3, 5), randn(2, 5))


def averaged():
    measure = {"r": chain.State.stable_rank}
    return chain.depth_average(chain.Chain(), randn(3, 3), depth=20, generator=seed(), measure=measure)


def calls():
    """A valid call of every door, by function: ``(object or None, arguments)``."""
    generator, run, target = seed(), passed(), randn(2)
    layered = {"run": run, "target": target, "layer": 1, "loss": "squared"}
    gf = {"weights": [field(2, 3)], "xx": field(3, 3), "yx": field(2, 3)}
    split = problem().split([randn(3, 4), randn(2, 3)])
    split_wide = two_layer.Split(randn(9, 3), randn(2, 9), randn(9, 1))
    state = chain.State(randn(1, 3, 4))
    zas_run = {"singular_values": torch.ones(2, **F64), "depth": 2, "step_size": 0.1}
    follow = {"chain": chain.Chain(), "x": randn(3, 3), "generator": generator}
    measure = {"measure": {"r": chain.State.stable_rank}}
    averages = {"depth": 20, "every": 1, "burn_in": 0, "blocks": 20}
    few = torch.ones(3, 3, 32, 32, device="cpu") * torch.arange(3, device="cpu")[:, None, None, None]
    watched = {"net": vgg(), "x": few, "y": torch.arange(3, device="cpu")}
    outputs = {"z": target, "target": target, "loss": "squared"}
    wide_net = {"x": randn(3, 2), "widths": (2, 4, 3), "scheme": "he_normal", "activation": "relu"}
    start = {"scheme": "he_normal", "activation": "tanh", "width": 3, "depth": 2}
    small, images_ = constant_step.classifier(**start, seed=0, device="cpu"), torch.ones(4, 784, device="cpu")
    return {
        scale.pick: (None, {"smoke": 1, "cpu": 2, "gpu": 3}),
        scale.count: (None, {"smoke": 1, "cpu": 2, "gpu": 3}),
        scale.chosen: (None, {"wanted": "cpu"}),
        scale.device_of: (None, {"values": target}),
        **{f: (None, {}) for f in (scale.name, scale.rehearsing, scale.device, scale.data_dir)},
        **{f: (None, {}) for f in (scale.building, scale.workers)},
        inits.sigma: (None, {"name": "sign", "rows": 2, "columns": 3}),
        inits.matrix: (None, {"name": "sign", "rows": 2, "columns": 3, "generator": generator}),
        inits.network: (None, {"widths": (3, 2), "name": "sign", "generator": generator}),
        inits.prescribed_rank: (None, {"widths": (3, 2), "ranks": 1, "aligned": True, "generator": generator}),
        inits.generator: (None, {"seed": 1, "device": "cpu"}),
        inits.generators: (None, {"seeds": 2, "device": "cpu"}),
        report.mean: (None, {"values": [1.0, 2.0], "level": 0.9}),
        report.slope: (None, {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 4.0], "level": 0.9}),
        report.intercept: (None, {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 4.0], "level": 0.9}),
        report.loglog_slope: (None, {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 4.0], "level": 0.9}),
        report.rank_correlation: (None, {"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 4.0, 3.0], "level": 0.9}),
        report.partial_rank_correlation: (
            None, {
                "x": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.0, 2.0, 4.0, 3.0, 5.0], "given": [2.0, 1.0, 4.0, 5.0, 3.0],
                "level": 0.9,
            },
        ),
        spectra.rank_tolerance: (None, {"a": randn(3, 2), "convention": "torch"}),
        spectra.numerical_rank: (None, {"a": randn(3, 2), "rtol": 0.1}),
        spectra.nearest_of_rank: (None, {"a": randn(3, 2), "rank": 1}),
        spectra.soft_rank: (None, {"h": randn(3, 2), "tau": 0.1}),
        spectra.stable_rank: (None, {"h": randn(3, 2)}),
        spectra.regularity_terms: (None, {"m": torch.eye(3, **F64)}),
        spectra.frobenius_change: (None, {"m": torch.eye(3, **F64)}),
        linear.Moments: (None, {"xx": torch.eye(3, **F64), "yx": randn(2, 3), "yy": torch.ones((), **F64)}),
        linear.Moments.of: (None, {"x": randn(3, 5), "y": randn(2, 5)}),
        linear.Moments.whitened: (None, {"target": randn(2, 3)}),
        linear.Moments.solution: (moments(), {}),
        linear.Moments.residual: (moments(), {"p": randn(2, 3)}),
        linear.product: (None, {"weights": two_layers()}),
        linear.loss: (None, {"weights": two_layers(), "moments": moments()}),
        linear.excess_loss: (None, {"weights": two_layers(), "moments": moments()}),
        linear.gradient: (None, {"weights": two_layers(), "moments": moments()}),
        linear.gradient_descent: (
            None, {
                "weights": two_layers(), "moments": moments(), "step_size": 0.01, "steps": 3,
                "measure": {"p": linear.product}, "every": 1, "constrain": None,
            },
        ),
        linear.curvature_scale: (None, {"weights": two_layers(), "moments": moments()}),
        linear.reachable_rank: (None, {"weights": two_layers(), "rtol": 0.1}),
        linear.project_onto_reachable: (None, {"weights": two_layers(), "rtol": 0.1}),
        saddles.directions: (None, {"moments": moments()}),
        saddles.critical_point: (None, {"widths": (3, 3, 2), "kept": [0], "moments": moments(), "filled": 0}),
        saddles.hide: (None, {"weights": two_layers(), "generator": generator}),
        saddles.way_down: (None, {"weights": two_layers(), "moments": moments(), "rtol": 1e-8}),
        saddles.moved: (None, {"weights": two_layers(), "direction": two_layers(), "distance": 0.1}),
        linear_tasks.linear_task: (
            None, {
                "d_in": 3, "d_out": 2, "n": 5, "generator": generator, "whitened": False, "teacher": "gaussian",
                "noise": 0.0, "dtype": torch.float64,
            },
        ),
        chain.batch_norm: (None, {"h": randn(3, 4)}),
        chain.Chain: (None, {"gamma": 1.0, "law": "sign", "normalization": "rows", "activation": "relu"}),
        chain.Chain.branch: (chain.Chain(), {"weight": randn(1, 3, 3), "h": randn(1, 3, 4)}),
        chain.Chain.layer: (chain.Chain(), {"weight": randn(1, 3, 3), "h": randn(1, 3, 4)}),
        chain.State.soft_rank: (state, {"tau": 0.1}),
        **{getattr(chain.State, f): (state, {}) for f in ("frobenius", "stable_rank", "regularity_terms")},
        chain.DepthAverage.mean: (averaged(), {"name": "r"}),
        chain.DepthAverage.standard_error: (averaged(), {"name": "r"}),
        chain.follow: (None, follow | measure | {"at": [0, 2]}),
        chain.depth_average: (None, follow | measure | averages),
        chain.draw_weights: (
            None, {"law": "sign", "d": 3, "generator": generator, "dtype": torch.float64, "depth": 2},
        ),
        chain.collinear_inputs: (None, {"d": 3, "n": 2, "spread": 0.1, "generator": generator}),
        lyapunov.lyapunov_exponents: (
            None, follow | {"depth": 80, "burn_in": 4, "blocks": 20, "qr_every": 4, "count": 3}
        ),
        lyapunov.gaussian_exponents: (None, {"d": 3, "device": "cpu"}),
        wide.centre: (None, {"samples": 1.0}),
        wide.density: (None, {"x": randn(3), "a": 1.5}),
        wide.moment: (None, {"order": 2, "a": 1.5}),
        wide.count_above: (None, {"level": 0.5}),
        wide.limit_spectrum: (None, {"d": 9, "device": "cpu"}),
        wide.rate: (None, {"gamma": 1.0, "d": 3}),
        wide.unit_rows: (None, {"d": 3, "samples": 2, "generator": [seed()], "dtype": torch.float64}),
        wide.states: (None, {"h": randn(1, 3, 2), "gamma": 1.0, "depth": 2, "generator": [seed()], "gains": None}),
        wide.summaries: (None, {"h": randn(1, 3, 2)}),
        wide.averages: (
            None,
            {"h": randn(1, 3, 2), "gamma": 1.0, "depth": 4, "burn_in": 1, "every": 1, "blocks": 2}
            | {"generator": [seed()], "gains": None},
        ),
        wide.exponents: (
            None,
            {"d": 4, "samples": 2, "count": 3, "depth": 4, "burn_in": 1, "blocks": 2, "generator": [seed()]},
        ),
        feedforward.forward: (
            None, {
                "weights": two_layers(), "x": randn(3), "biases": [randn(3), randn(2)], "activation": "tanh",
                "samples": False,
            },
        ),
        feedforward.Pass.draw: (feedforward.forward([randn(4, 2, 3)], randn(3)), {"index": 1}),
        feedforward.layer_jacobian: (None, {"run": run, "layer": 1}),
        feedforward.output_jacobians: (None, {"run": run}),
        feedforward.loss_value: (None, outputs),
        feedforward.loss_gradient: (None, outputs),
        feedforward.loss_hessian: (None, outputs),
        curvature.layer_gradient: (None, layered),
        curvature.kronecker_factors: (None, layered),
        curvature.preactivation_hessian: (None, layered),
        curvature.layer_hessian_norm: (None, layered | {"kept": True}),
        curvature.layer_norms: (None, {"run": run}),
        curvature.tangent_kernel: (None, {"run": run, "loss": "squared"}),
        curvature.kept_form: (None, layered | {"g": randn(3, 2)}),
        curvature.neglected_terms: (None, layered | {"g": randn(3, 2)}),
        curvature.exact_form: (None, layered | {"g": randn(3, 2)}),
        hessian_products.layer_hessian_operator: (None, layered),
        hessian_products.lanczos_norm: (None, layered | {"generator": generator, "tol": 1e-6}),
        hessian_products.dense_layer_hessian: (None, layered),
        hessian_products.gauss_newton_norm: (
            None, {"run": feedforward.forward([randn(3, 2)], randn(4, 2), samples=True), "loss": "squared", "tol": 0.1},
        ),
        wide_kernel.limit: (None, wide_net),
        wide_kernel.largest_eigenvalue: (None, wide_net | {"loss": "squared"}),
        wide_kernel.spread: (None, {"found": wide_kernel.limit(**wide_net)} | dict(list(wide_net.items())[1:])),
        constant_step.pixels: (None, {"count": 10, "split": "train", "dtype": torch.float32, "device": "cpu"}),
        constant_step.classifier: (None, start | {"seed": 0, "device": "cpu"}),
        constant_step.measured: (None, {"net": small, "x": images_, "activation": "tanh", "loss": "squared"}),
        constant_step.train: (
            None, {
                "net": small, "x": images_, "y": torch.arange(4, device="cpu"), "loss": "squared", "step_size": 0.1,
                "updates": 2, "batch": 2, "generator": generator, "test": None,
            },
        ),
        constant_step.rule_step: (None, {"moment": 2.0, "loss": "squared"}),
        two_layer.Split: (None, {"inner": randn(3, 3), "outer": randn(2, 3), "unseen": randn(3, 1)}),
        two_layer.Problem.of: (None, {"x": randn(4, 3), "y": randn(2, 3), "rtol": 1e-9}),
        two_layer.Problem.split: (problem(), {"weights": [randn(3, 4), randn(2, 3)]}),
        two_layer.Problem.join: (problem(), {"split": split}),
        two_layer.Problem.min_norm: (problem(), {}),
        two_layer.Problem.excess_loss: (problem(), {"weights": split.weights}),
        two_layer.Problem.distance: (problem(), {"weights": split.weights, "unseen": split.unseen}),
        two_layer.imbalance: (None, {"weights": two_layers()}),
        two_layer.level: (None, {"weights": two_layers()}),
        two_layer.compress: (None, {"split": split}),
        two_layer.gaussian_start: (
            None, {"widths": (3, 4, 2), "std_inner": 1.0, "std_outer": 1.0, "generator": generator},
        ),
        two_layer.start_of_level: (
            None, {"product": randn(2, 3), "c": 1.0, "hidden": 4, "heavy": "inner", "generator": generator},
        ),
        two_layer.orthogonalize: (None, {"split": split_wide, "against": ["inner"]}),
        two_layer.outer_off_inner: (None, {"split": split_wide}),
        flow.gradient_flow: (
            None, {"weights": two_layers(), "moments": moments(), "times": [0.0, 0.1], "rtol": 1e-6, "atol": 1e-6},
        ),
        zas.start: (None, {"widths": (2, 3), "dtype": torch.float64, "device": "cpu"}),
        zas.near_identity: (None, {"dimension": 2, "depth": 2, "generator": generator}),
        zas.near_zas: (None, {"dimension": 2, "depth": 2, "sigma": 0.1, "generator": generator}),
        zas.invariants: (None, {"weights": two_layers()}),
        zas.theorem_step_size: (None, {"target_norm": 1.0, "depth": 2}),
        zas.Target.of: (None, {"phi": randn(2, 2)}),
        zas.Target.weights: (zas.Target.of(randn(2, 2)), {"u": randn(2), "v": randn(2), "depth": 2}),
        zas.recursion: (None, zas_run | {"steps": 3}),
        zas.sharp_step_size: (None, {"spectral_norm": 0.5, "depth": 3}),
        zas.solution: (None, {"singular_value": 1.0, "depth": 2}),
        step_counts.iterations: (
            None, zas_run | {"tolerance": 1e-3, "max_steps": 9, "multiplicity": torch.ones(2, **F64), "race": False}
        ),
        step_counts.scalar_iterations: (
            None, {"weights": torch.ones(2, **F64), "target": 1.0, "step_size": 0.1, "tolerance": 0.1, "max_steps": 9}
        ),
        step_counts.step_sizes: (None, {"low": 0.1, "high": 1.0, "ratio": 2.0, "device": "cpu"}),
        nets.MLP: (
            None, {
                "d_in": 3, "width": 4, "depth": 2, "d_out": 1, "activation": "relu", "batch_norm": False,
                "centred": True,
            },
        ),
        nets.MLP.forward: (mlp(), {"x": torch.ones(5, 3, device="cpu")}),
        nets.MLP.representations: (mlp(), {"x": torch.ones(5, 3, device="cpu")}),
        nets.UncentredBatchNorm1d: (None, {"num_features": 3, "device": "cpu"}),
        nets.UncentredBatchNorm1d.forward: (
            nets.UncentredBatchNorm1d(3, device="cpu"), {"x": torch.ones(5, 3, device="cpu")}
        ),
        ensembles.Ensemble.of: (None, {"networks": [mlp(), mlp()]}),
        ensembles.Ensemble.member: (ensemble(), {"index": 1}),
        ensembles.Ensemble.outputs: (ensemble(), {"x": torch.ones(5, 3, device="cpu"), "training": True}),
        ensembles.Ensemble.representations: (ensemble(), {"x": torch.ones(5, 3, device="cpu"), "training": True}),
        ensembles.sgd: (None, trained() | {"warm_up": 1, "measure": {"fine": ensembles.finite}, "every": 1}),
        ensembles.History.last: (ensembles.sgd(**trained()), {"count": 2}),
        ensembles.accuracy: (None, {k: trained()[k] for k in ("ensemble", "x", "y")} | {"training": True}),
        ensembles.stable_rank: (None, {"ensemble": ensemble(), "x": torch.ones(5, 3, device="cpu")}),
        ensembles.finite: (None, {"ensemble": ensemble()}),
        nets.initialize_: (None, {"net": mlp(), "scheme": "sign", "generator": generator}),
        residual.ResidualMLP: (
            None,
            {"d_in": 3, "width": 4, "block": 2, "depth": 2, "d_out": 2, "runs": 1}
            | {"dtype": torch.float64, "device": "cpu"},
        ),
        residual.ResidualMLP.forward: (residual_net(), {"x": randn(3, 5)}),
        residual.ResidualMLP.norms: (residual_net(), {"x": randn(3, 5)}),
        residual.start_: (None, {"net": residual_net(), "start": "mzas", "generator": generator}),
        residual.descend: (
            None,
            {"net": residual_net(), "x": randn(3, 4), "labels": torch.tensor([0, 1, 1, 0], device="cpu")}
            | {"step_size": [0.1], "steps": 2, "warm_up": 1},
        ),
        residual_growth.mean_growth: (None, {"width": 3, "block": 2, "branch": 0.5}),
        residual_growth.log_growth: (None, {"width": 3, "block": 2, "branch": 0.5}),
        residual_growth.overflow_depth: (None, {"width": 3, "block": 2, "dtype": torch.float32, "norm": 2.0}),
        residual_growth.step_scale: (
            None, {"width": 3, "block": 2, "depth": 4, "d_in": 5, "d_out": 2, "input_norm": 2.0},
        ),
        residual_growth.log_norms: (
            None, {"width": 3, "block": 2, "depth": 4, "branch": 0.5, "networks": 2, "generator": generator},
        ),
        one_layer.moved: (None, {"m": torch.eye(3, **F64), "gamma": 0.1, "weight": randn(3, 3)}),
        one_layer.second_order: (None, {"m": torch.eye(3, **F64), "weight": randn(3, 3)}),
        one_layer.squares: (None, {"m": torch.eye(3, **F64)}),
        one_layer.changes: (
            None, {"m": torch.eye(3, **F64), "gammas": [0.1], "law": "sign", "count": 4, "generator": generator},
        ),
        one_layer.nearly_collinear: (None, {"d": 3, "eps": 0.1, "device": "cpu"}),
        training.raise_rank: (
            None, {
                "net": mlp(), "x": randn(5, 3).float(), "step_size": 0.1, "steps": 2, "batches": 1, "batch_size": 4,
                "generator": generator, "layerwise": False, "rule": "gradient", "direction": "ascent",
            },
        ),
        predicted_norms.signal_factor: (None, {"scheme": "he_normal", "width": 3, "activation": "relu"}),
        predicted_norms.gauss_newton_norm: (
            None, {"scheme": "he_normal", "depth": 3, "width": 4, "activation": "relu"},
        ),
        predicted_norms.jacobian_edge: (None, {"slopes": [1.0, 0.5], "weights": [0.5, 0.5]}),
        predicted_norms.edge: (None, {"pairs": 2, "kept": 0.5, "orthogonal": False}),
        predicted_norms.predicted_norm: (
            None, {"scheme": "he_normal", "depth": 3, "layer": 1, "width": 5, "activation": "relu"}
        ),
        images.fashion_mnist: (None, {"split": "test", "full": False, "fetch": False, "device": "cpu"}),
        cifar.cifar10: (None, {"split": "test", "fetch": False, "device": "cpu"}),
        cifar.available: (None, {}),
        convnets.VGG19: (None, {"width": 0.03, "classes": 3, "norm": "uncentred", "at_most": 1, "device": "cpu"}),
        convnets.ResNet50: (None, {"width": 0.03, "classes": 3, "norm": "none", "device": "cpu"}),
        convnets.ConvNet.forward: (vgg(), {"x": few}),
        convnets.ConvNet.last_hidden: (vgg(), {"x": few}),
        convnets.pictures: (None, {"x": torch.ones(2, 784, device="cpu")}),
        fitting.fit: (
            None, watched | {
                "step_size": 0.1, "steps": 2, "batch_size": 2, "generator": generator, "limit": 1e9,
                "loss": "squared", "measure": None, "every": 1,
            },
        ),
        fitting.accuracy: (None, watched | {"batch_size": 2}),
        fitting.alignment: (None, {"h": randn(3, 4)}),
        fitting.gradient_norms: (None, watched),
        fitting.examine: (None, watched),
        finite_field.random_matrix: (None, {"rows": 2, "columns": 3, "generator": np.random.default_rng(0), "rank": 1}),
        finite_field.multiply: (None, {"factors": field(2, 2)}),
        finite_field.column_basis: (None, {"a": field(2, 3)}),
        finite_field.rank: (None, {"a": field(2, 3)}),
        finite_field.gradient_step: (None, gf | {"step_size": 3}),
        finite_field.prescribed_rank: (
            None, {"widths": (3, 2), "ranks": [1], "aligned": True, "generator": np.random.default_rng(0)}
        ),
        finite_field.reachable_rank: (None, {"weights": gf["weights"]}),
        finite_field.active_spaces: (None, gf),
        finite_field.data_ceiling: (None, gf | {"generator": np.random.default_rng(0)}),
    }  # fmt: skip


CALLS = calls()
pytestmark = pytest.mark.usefixtures("tiny_cifar")


def unbound(function):
    return getattr(function, "__func__", function)


def doors():
    """Public functions and classes of the mathematics, and their public methods, by name."""
    found = {}
    for module in pkgutil.iter_modules(firststep.__path__):
        if module.ispkg or module.name in NOT_DOORS:
            continue
        code = importlib.import_module(f"firststep.{module.name}")
        for name, item in vars(code).items():
            if name.startswith("_") or getattr(item, "__module__", None) != code.__name__:
                continue
            if inspect.isclass(item):
                own = {k: getattr(item, k) for k, v in vars(item).items() if not k.startswith("_")}
                found |= {
                    f"{module.name}.{name}.{k}": v for k, v in own.items() if inspect.isroutine(v) and callable(v)
                }
                if item in RESULTS:
                    continue
            if callable(item) and not isinstance(item, type(list[int])):
                found[f"{module.name}.{name}"] = item
    return found


DOORS = doors()
TABLE = {unbound(function): call for function, call in CALLS.items()}


def invoke(function, owner, arguments):
    if function in (scale.device_of, finite_field.multiply):
        return function(*arguments.values())
    return function(owner, **arguments) if owner is not None else function(**arguments)


@pytest.mark.parametrize("name", DOORS)
def test_every_door_has_a_valid_call(name):
    assert unbound(DOORS[name]) in TABLE, f"add a valid call of {name} to CALLS"
    result = invoke(DOORS[name], *TABLE[unbound(DOORS[name])])
    assert all(t.isfinite().all() for t in tensors(result))


def tensors(value):
    """All floating-point tensors in a result."""
    if isinstance(value, float):
        yield torch.tensor(value, **F64)
    elif isinstance(value, torch.Tensor):
        yield value.detach()
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif dataclasses.is_dataclass(value) and not isinstance(value, chain.Chain | type):
        yield from (t for field in dataclasses.fields(value) for t in tensors(getattr(value, field.name)))
    elif isinstance(value, dict):
        yield from (t for item in value.values() for t in tensors(item))
    elif isinstance(value, list | tuple):
        yield from (t for item in value for t in tensors(item))


FOREIGN = [
    None, "x", "", b"x", True, math.nan, math.inf, -math.inf, 0, -1, 1.5, 1e400, 2**63, -(2**63), 10**400, 1j, [], {},
    (), [None], ["x"], [math.nan], [2**63], object(), object, torch.float16, "cuda:99", lambda: None,
    torch.zeros(0, **F64), torch.zeros(0, 3, **F64), torch.tensor(math.nan, **F64), torch.full((2, 2), math.inf, **F64),
    torch.ones(2, dtype=torch.int64, device="cpu"), torch.ones(3, 3, dtype=torch.complex128, device="cpu"),
    torch.ones(2, 2, dtype=torch.bool, device="cpu"), torch.ones(2, 2, dtype=torch.float16, device="cpu"),
    torch.ones(3, 3, dtype=torch.float32, device="cpu"), torch.ones(7, 5, **F64), torch.ones((), **F64),
    np.ones((2, 2)), np.float64(math.nan), np.int64(-1),
]  # fmt: skip


def cases():
    for name, function in DOORS.items():
        if unbound(function) in TABLE:
            for argument in TABLE[unbound(function)][1]:
                yield pytest.param(function, argument, id=f"{name}({argument})")


SECONDS, BYTES = 5, 2**33


class TooLong(BaseException):
    pass


def stop(*_):
    raise TooLong


def refused_or_regular(function, owner, arguments):
    """None if the call is refused in a sentence that names an argument or ends in a regular result, else why not."""
    try:
        result = invoke(function, owner, arguments)
    except ValueError as error:
        names = {*arguments, "device"} if function is scale.chosen else arguments
        named = any(name in str(error) for name in names)  # a value may be good, and its partner not fit it
        return None if named and " must " in str(error) else f"ValueError({error})"
    except TooLong:
        return "does not end"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if unbound(function) not in {unbound(f) for f in DIVERGES} and not all(t.isfinite().all() for t in tensors(result)):
        return "a number that is not finite"
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("function", "argument"), cases())
def test_a_foreign_value_is_refused_by_name_or_gives_a_regular_result(function, argument):
    if function is scale.pick or argument == "constrain":
        pytest.skip("picks anything; any function will do")
    before, timer = signal.signal(signal.SIGALRM, stop), signal.getitimer(signal.ITIMER_REAL)
    address_space = resource.getrlimit(resource.RLIMIT_AS)
    owner, arguments = TABLE[unbound(function)]
    failures = []
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, address_space[1]))
        for value in FOREIGN:
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            found = refused_or_regular(function, owner, {**arguments, argument: value})
            if found:
                failures.append(f"{argument}={value!r}: {found}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)  # pytest's own
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, address_space)
    assert not failures, "\n".join(failures)
