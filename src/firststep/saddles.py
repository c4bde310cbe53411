"""Critical points of deep linear networks: one of any rank, and the way down from it.

With X Xᵀ of full rank the loss of a product P is, up to a constant, ½‖P (XXᵀ)^½ − Σ σ_i u_i v_iᵀ‖²_F. A network that
carries some of the directions i, and nothing else, is a critical point; the proof of Theorem 2.1 of Yun et al. (2018),
as the chapter on full rank tells it, says where its loss falls.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from firststep import checks, inits
from firststep.linear import Moments, Weights, product
from firststep.spectra import numerical_rank


def directions(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Singular directions of the least-squares solution: it is ``(u * sigma) @ rows``, with σ descending.

    Returns:
        u_i in columns, ``(d_L, k)``; σ_i, ``(k,)``; and in rows v_iᵀ(XXᵀ)^(−½), ``(k, d_0)``.

    Raises:
        ValueError: moments with an axis of runs, or XXᵀ without full rank.
    """
    _single(moments)
    if moments.xx is None:
        return tuple(torch.linalg.svd(moments.yx, full_matrices=False))
    eigenvalues, q = torch.linalg.eigh(moments.xx)
    good = bool(eigenvalues[0] > len(q) * torch.finfo(q.dtype).eps * eigenvalues[-1])
    checks.require(good, "moments", float(eigenvalues[0]), "with XXᵀ of full rank")
    inverse_root = q / eigenvalues.sqrt() @ q.mT
    u, sigma, vh = torch.linalg.svd(moments.yx @ inverse_root, full_matrices=False)
    return u, sigma, vh @ inverse_root


def critical_point(widths: Sequence[int], kept: Sequence[int], moments: Moments, *, filled: int = 0) -> Weights:
    """A network that carries the singular directions in ``kept``, with σ^{1/L} in every factor, and is critical.

    Args:
        widths: ``(d_0, …, d_L)``, no hidden one below the number of directions that pass through it.
        kept: indices of singular directions, each once.
        moments: the data, without an axis of runs.
        filled: number of layers from the top, 0 … L − 2, in which the missing directions are present with weight one.
            The product does not show them, since two layers at least stay empty: hidden rank.

    Raises:
        ValueError: widths that do not fit the moments or are too narrow, indices out of range or twice, or ``filled``
            out of range.
    """
    u, sigma, rows = directions(moments)
    widths, k = checks.widths("widths", widths), len(sigma)
    layers = len(widths) - 1
    checks.require((widths[0], widths[-1]) == (rows.shape[1], len(u)), "widths", widths, "those of the moments outside")
    good = isinstance(kept, Sequence) and not isinstance(kept, str) and all(checks.is_integer(i) for i in kept)
    good = good and len(set(kept)) == len(kept) and all(0 <= i < k for i in kept)
    checks.require(good, "kept", kept, f"different indices from 0 to {k - 1}")
    good = checks.is_integer(filled) and 0 <= filled <= max(layers - 2, 0)
    checks.require(good, "filled", filled, f"an integer from 0 to {max(layers - 2, 0)}")
    kept, missing = list(kept), [i for i in range(k) if i not in kept]
    channels = k if filled else len(kept)
    good = all(width >= channels for width in widths[1:-1]) and (layers > 1 or not missing)
    checks.require(
        good, "widths", widths, f"hidden widths of at least {channels}, and one layer only for all directions"
    )
    shapes = zip(widths[1:], widths[:-1], strict=True)
    weights = [torch.zeros(shape, dtype=sigma.dtype, device=sigma.device) for shape in shapes]
    if layers == 1:
        return [(u * sigma) @ rows]
    share = sigma[kept] ** (1 / layers)
    for weight in weights[1:-1]:
        weight[: len(kept), : len(kept)] = torch.diag(share)
    weights[0][: len(kept)] = share[:, None] * rows[kept]
    weights[-1][:, : len(kept)] = u[:, kept] * share
    for weight in weights[layers - filled : -1]:
        weight[range(len(kept), k), range(len(kept), k)] = 1.0
    if filled:
        weights[-1][:, len(kept) : k] = u[:, missing]
    return weights


def hide(weights: Weights, generator: Generator) -> Weights:
    """Random invertible matrices between the layers, W_l → G_l W_l G_{l−1}⁻¹, of condition number at most e².

    It changes neither the product nor whether the gradient is zero.

    Raises:
        ValueError: weights that do not chain or have an axis of runs, or no generator.
    """
    weights = [w.clone() for w in _network(weights)]
    checks.generator("generator", generator)
    for layer in range(len(weights) - 1):
        d, kind = len(weights[layer]), {"generator": generator, "dtype": weights[layer].dtype}
        left, right = (inits.matrix("orthogonal", d, d, **kind) for _ in range(2))
        spread = torch.exp(2 * torch.rand(d, device=generator.device, **kind) - 1)
        weights[layer] = (left * spread) @ right @ weights[layer]
        weights[layer + 1] = weights[layer + 1] @ (right.mT / spread) @ left.mT
    return weights


def way_down(weights: Weights, moments: Moments, rtol: float = 1e-8) -> tuple[Weights, Weights] | None:
    """The path of the proof: a slide that changes nothing, and a step along which the loss then falls.

    Args:
        weights: a critical point, without an axis of runs.
        moments: the data.
        rtol: relative threshold of ranks and of the gradient in the product.

    Returns:
        The directions of slide and step, in the shapes of ``weights``; ``None`` where there is no layer to slide along
        or nothing left to gain.

    Raises:
        ValueError: shapes that do not fit, or an axis of runs.
    """
    weights = _network(weights)
    _single(moments)
    residual = moments.residual(product(weights))
    above = [torch.eye(len(weights[-1]), dtype=weights[-1].dtype, device=weights[-1].device)]
    for weight in reversed(weights[1:]):
        above.insert(0, above[0] @ weight)  # above[m - 1] is A_m = W_L … W_{m+1}
    ranks = [int(numerical_rank(a, rtol)) for a in above]
    deficient = [m for m, rank in enumerate(ranks) if rank < len(above[-1])]
    u, size, vh = torch.linalg.svd(residual)
    no_kernel = any(ranks[m] == above[m].shape[1] for m in deficient)
    if not deficient or no_kernel or size[0] < rtol * torch.linalg.matrix_norm(moments.yx, ord=2):
        return None
    slide, step = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    kernel = vh[0]
    for m in deficient:
        previous, kernel = kernel, torch.linalg.svd(above[m]).Vh[-1]
        slide[m] = torch.outer(kernel, previous)
    step[m + 1] = torch.outer(torch.linalg.pinv(above[m + 1]) @ u[:, 0], kernel)
    return slide, step


def moved(weights: Weights, direction: Weights, distance: float) -> Weights:
    """``weights + distance · direction``, layer by layer.

    Raises:
        ValueError: weights that do not chain, a direction of other shapes, or a distance that is not finite.
    """
    weights, direction = checks.weights("weights", weights), checks.weights("direction", direction)
    shapes = [w.shape for w in weights], [w.shape for w in direction]
    checks.require(shapes[0] == shapes[1], "direction", shapes[1], "of the shapes of weights")
    if not isinstance(distance, Tensor):
        checks.number("distance", distance)
    else:
        checks.tensor("distance", distance, weights[0].dtype)
        checks.require(distance.ndim == 0, "distance", tuple(distance.shape), "one number")
    return [w + distance * d for w, d in zip(weights, direction, strict=True)]


def _network(weights: Weights) -> Weights:
    weights = checks.weights("weights", weights)
    shapes = [tuple(w.shape) for w in weights]
    checks.require(all(w.ndim == 2 for w in weights), "weights", shapes, "one network, without an axis of runs")
    return weights


def _single(moments: Moments) -> None:
    checks.instance("moments", moments, Moments)
    checks.require(moments.yx.ndim == 2, "moments", tuple(moments.yx.shape), "without an axis of runs")
