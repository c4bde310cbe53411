"""How signals grow in a residual network with a Xavier start, before anything is run.

In z_l = z_{l-1} + U_l relu(V_l z_{l-1}) with independent Gaussian weights the law of ‖z_l‖²/‖z_{l-1}‖² does not depend
on z_{l-1}: turning z turns nothing that the weights could see. So log ‖z_l‖² is a random walk with independent steps,
whatever the input, and it is known at which depth it leaves the range of a number format.
"""

import math

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.special import comb
from torch import Generator, Tensor

from firststep import checks, report

NODES = 40  # of every quadrature


def mean_growth(width: int, block: int, branch: float = 1.0) -> float:
    """E‖z_l‖²/‖z_{l-1}‖² = 1 + 2 a² D m/(D + m)² of a Xavier layer with its branch multiplied by a.

    Args:
        width: D.
        block: m.
        branch: a.

    Raises:
        ValueError: a size that is not a positive integer, or a negative factor.
    """
    width, block = checks.positive_integer("width", width), checks.positive_integer("block", block)
    return 1 + 2 * checks.between("branch", branch, 0) ** 2 * width * block / (width + block) ** 2


def log_growth(width: int, block: int, branch: float = 1.0) -> tuple[float, float]:
    """Mean and standard deviation of log ‖z_l‖²/‖z_{l-1}‖² in a Xavier layer with its branch multiplied by a.

    Given V the branch is Gaussian with variance s² = a² (2/(D + m))² Σ relu(gᵢ)² in every direction, so the ratio is
    (1 + s g)² + s² χ², with a Gaussian g and D − 1 degrees of freedom; Gauss quadrature over the three.

    Args:
        width: D, at least 2.
        block: m.
        branch: a.

    Raises:
        ValueError: a size that is not an integer in its range, or a negative factor.
    """
    checks.positive_integer("block", block)
    checks.require(checks.positive_integer("width", width) > 1, "width", width, "an integer of at least 2")
    factor = checks.between("branch", branch, 0) ** 2 * (2 / (width + block)) ** 2
    g, p_g = np.polynomial.hermite_e.hermegauss(NODES)
    rest, p_rest = _chi_square(width - 1)
    first = second = 0.0  # no active neuron: log 1
    for active in range(1, block + 1):
        squares, p_squares = _chi_square(active)
        s = np.sqrt(factor * squares)[:, None, None]
        log = np.log((1 + s * g[:, None]) ** 2 + s**2 * rest)
        p = comb(block, active) / 2**block * np.einsum("i,j,k->ijk", p_squares, p_g / p_g.sum(), p_rest)
        first, second = first + (p * log).sum(), second + (p * log**2).sum()
    return float(first), math.sqrt(max(second - first**2, 0.0))


def _chi_square(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for averages over χ², from the Jacobi matrix of the Laguerre polynomials."""
    a, i = freedom / 2 - 1, np.arange(1, NODES)
    nodes, vectors = eigh_tridiagonal(np.r_[a + 1, 2 * i + a + 1], np.sqrt(i * (i + a)))
    return 2 * nodes, vectors[0] ** 2


def overflow_depth(width: int, block: int, dtype: torch.dtype, norm: float = 1.0) -> report.Estimate:
    """Depth at which a signal of a Xavier start leaves the range of a number format: first passage of a random walk.

    Args:
        width: D.
        block: m.
        dtype: the number format.
        norm: ‖z_0‖.

    Returns:
        The mean, (log max² − log ‖z_0‖²)/μ with μ the mean step; the standard deviation over networks, as ``error``;
        and 95 % of the networks.

    Raises:
        ValueError: as :func:`log_growth`; no floating-point dtype, or a norm that is not positive.
    """
    checks.floating("dtype", dtype)
    checks.number("norm", norm, above=0, allowed="a finite number > 0")
    drift, noise = log_growth(width, block)
    way = 2 * (math.log(torch.finfo(dtype).max) - math.log(norm))
    mean, spread = way / drift, noise * math.sqrt(way / drift**3)
    return report.Estimate(mean, spread, mean - 1.96 * spread, mean + 1.96 * spread)


def step_scale(width: int, block: int, depth: int, d_in: int, d_out: int, input_norm: float = 1.0) -> report.Estimate:
    """log10 of ‖f‖/‖∇f‖² at a Xavier start, the step size at which one step changes outputs by as much as they are.

    A signal and a gradient both grow like exp(μ l/2), so every layer adds the same to ‖∇f‖², and ‖f‖/‖∇f‖² falls like
    exp(−μ L/2)/L. Typical sizes, with μ of :func:`log_growth`; the readout, V_0 and 2 L blocks are summed.

    Args:
        width: D.
        block: m.
        depth: L.
        d_in: input dimension.
        d_out: output dimension.
        input_norm: ‖x‖, positive.

    Returns:
        The logarithm; its standard deviation over networks, as ``error``; and 95 % of the networks.

    Raises:
        ValueError: as :func:`log_growth`; a size that is not a positive integer, or a norm that is not positive.
    """
    for name, value in (("depth", depth), ("d_in", d_in), ("d_out", d_out)):
        checks.positive_integer(name, value)
    drift, noise = log_growth(width, block)
    x = checks.number("input_norm", input_norm, above=0, allowed="a finite number > 0") ** 2
    z, u = 2 * width / (width + d_in) * x, 2 * width / (width + d_out)  # |z_0|² and |∂f/∂z_L|²
    blocks = 2 * depth * block / (width + block) * math.exp(-drift) * z * u
    value = math.log(math.sqrt(z * 2 / (width + d_out)) / (z + x * u + blocks)) - drift * depth / 2
    value, error = value / math.log(10), noise * math.sqrt(depth) / 2 / math.log(10)
    return report.Estimate(value, error, value - 1.96 * error, value + 1.96 * error)


def log_norms(
    width: int, block: int, depth: int, branch: float = 1.0, *, networks: int, generator: Generator
) -> Tensor:
    """log ‖z_l‖² of one unit input in several Xavier networks, drawn layer by layer and scaled back: never overflows.

    Args:
        width: D.
        block: m.
        depth: L.
        branch: factor on the branch.
        networks: how many.
        generator: source of the weights.

    Returns:
        float64, ``(depth + 1, networks)``.

    Raises:
        ValueError: a size that is not a positive integer, a negative factor, or no generator.
    """
    for name, value in (("width", width), ("block", block), ("depth", depth), ("networks", networks)):
        checks.positive_integer(name, value)
    checks.generator("generator", generator)
    std = math.sqrt(2 / (width + block))
    options = {"dtype": torch.float64, "device": generator.device}
    z = torch.zeros(networks, width, 1, **options)
    z[:, 0] = 1
    found = torch.zeros(depth + 1, networks, **options)
    outer_std = std * checks.between("branch", branch, 0)
    for layer in range(1, depth + 1):
        weights = torch.randn(2, networks, width, block, generator=generator, **options)
        z = torch.baddbmm(z, weights[0], torch.bmm(weights[1].mT, z).relu_(), alpha=std * outer_std)
        square = z.square().sum((1, 2))
        found[layer] = found[layer - 1] + square.log()
        z /= square.sqrt()[:, None, None]
    return found
