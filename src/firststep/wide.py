"""The wide limit of the normalized chain: its predicted law, and an exact way to run it with few samples.

With Gaussian weights a layer of the linear chain H ↦ BN(H + γ W H) needs no d × d matrix: the rows of W H are
independent Gaussian vectors with covariance HᵀH, so they may be drawn from it. A layer then costs d N² instead of d³,
and since the rank falls to about 2√d, N of order √d is enough. Without skip connections (γ = ∞) the rows of the next
state are independent directions from the angular central Gaussian law whose parameter is C = HᵀH/(dN): the spectrum of
C is a Markov chain of its own.

Notation: p_1 ≥ p_2 ≥ … are the eigenvalues of C, which are those of M/d, so that Σp = 1; and x = √d p, the eigenvalues
of M/√d.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from firststep import checks, scale

EDGES = tuple(k / 20 for k in range(61))  # of the histograms, in units of √d
LEVELS = (0.1, 0.5, 1.0)


def centre(samples: float) -> float:
    """Centre a of the semicircle xρ(x) for N = ``samples`` · √d: c/4 + 1/c below c = 2, and 1 from there on.

    Raises:
        ValueError: ``samples`` is not positive.
    """
    c = min(checks.number("samples", samples, above=0, allowed="a positive number"), 2.0)
    return c / 4 + 1 / c


def density(x: Tensor, a: float = 1.0) -> Tensor:
    """Predicted density ρ of the eigenvalues of M/√d: xρ(x) is the semicircle law on [a − 1, a + 1].

    Args:
        x: any shape, floating point.
        a: centre, at least 1; 1 gives (2/π)√((2 − x)/x).

    Raises:
        ValueError: ``x`` is no finite floating-point tensor, or ``a`` is below 1.
    """
    checks.tensor("x", x)
    checks.between("a", a, 1)
    inside = ((x - a).abs() < 1) & (x > 0)
    safe = torch.where(inside, x, a)
    return torch.where(inside, (2 / math.pi) * (1 - (safe - a).square()).clamp_min(0).sqrt() / safe, 0)


def moment(order: int, a: float = 1.0) -> float:
    """∫ xⁿ ρ(x) dx for n = ``order`` ≥ 1, the moment of order n − 1 of a semicircle of radius 1 around ``a``.

    Raises:
        ValueError: ``order`` is no positive integer, or ``a`` is below 1.
    """
    n = checks.positive_integer("order", order) - 1
    checks.between("a", a, 1)
    catalan = [math.comb(2 * j, j) / (j + 1) / 4**j for j in range(n // 2 + 1)]
    return float(sum(math.comb(n, 2 * j) * a ** (n - 2 * j) * value for j, value in enumerate(catalan)))


def count_above(level: float) -> float:
    """∫ρ from ``level`` to 2 at a = 1: so many eigenvalues of M, in units of √d, exceed ``level`` · √d.

    Raises:
        ValueError: the level is not in [0, 2].
    """
    checks.require(0 <= checks.number("level", level) <= 2, "level", level, "in [0, 2]")
    angle = math.acos(level - 1)  # x = 1 + cos θ
    return (2 / math.pi) * (angle - math.sin(angle))


def limit_spectrum(d: int, *, device: torch.device | str | None = None) -> Tensor:
    """Eigenvalues p of C at the quantiles of the predicted law: 2√d of them, rounded, with sum one.

    Args:
        d: width.
        device: of the result; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: ``d`` is no positive integer.
    """
    count = round(2 * math.sqrt(checks.positive_integer("d", d)))
    angle = torch.linspace(0, math.pi, 20_001, dtype=torch.float64, device=scale.chosen(device))
    mass = (angle - angle.sin()) / math.pi  # of the law above x = 1 + cos θ
    wanted = (torch.arange(count, device=angle.device) + 0.5) / count
    x = 1 + angle[torch.searchsorted(mass, wanted)].cos()
    return x / x.sum()


def rate(gamma: float, d: int) -> float:
    """κ = 1 − (1 + γ²d)⁻²: the speed of the flow of eigenvalues relative to γ = ∞; 2γ²d where that is small.

    Raises:
        ValueError: ``gamma`` is negative or no number, or ``d`` no positive integer.
    """
    checks.positive_integer("d", d)
    if _endless(gamma):
        return 1.0
    return 1 - (1 + checks.between("gamma", gamma, 0) ** 2 * d) ** -2


def _endless(gamma: object) -> bool:
    return isinstance(gamma, float) and gamma == math.inf


def unit_rows(d: int, samples: int, generator: Sequence[Generator], dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian inputs with rows of length one, ``(seeds, d, samples)``.

    Raises:
        ValueError: a size is no positive integer, or no generators.
    """
    checks.positive_integer("d", d)
    checks.positive_integer("samples", samples)
    checks.floating("dtype", dtype)
    return torch.nn.functional.normalize(_normal(d, samples, checks.generators("generator", generator), dtype), dim=-1)


def states(
    h: Tensor, *, gamma: float, depth: int, generator: Sequence[Generator], gains: Tensor | None = None
) -> Iterator[Tensor]:
    """The states after layers 1, …, ``depth`` of the chain with Gaussian weights, drawn from their exact law.

    Args:
        h: ``(seeds, d, N)``, rows of length one: H/√N. Columns are kept up to a rotation, so that only what depends
            on HHᵀ is meaningful.
        gamma: positive; ``math.inf`` for no skip connection.
        depth: number of layers.
        generator: one a seed.
        gains: ``(d,)``, lengths that the rows get after normalization; ones by default.

    Raises:
        ValueError: shapes do not fit, γ is not positive, or no generator for a seed.
    """
    checks.matrices("h", h)
    generators = checks.generators("generator", generator)
    checks.require(h.ndim == 3 and len(h) == len(generators), "h", tuple(h.shape), f"({len(generators)}, d, N)")
    checks.require(_endless(gamma) or checks.number("gamma", gamma) > 0, "gamma", gamma, "positive")
    checks.natural("depth", depth)
    good = gains is None or (torch.is_tensor(gains) and gains.shape == h.shape[1:2] and bool((gains > 0).all()))
    checks.require(good, "gains", gains, "one positive number a row")
    return _states(h, gamma, depth, generators, gains)


def _states(h, gamma, depth, generators, gains):
    for _ in range(depth):
        noise = _normal(*h.shape[1:], generators, h.dtype)
        weighted = h if gains is None else h * gains[:, None]
        if gamma == math.inf:  # Gaussian rows with the right spectrum; their eigenvectors do not matter
            h = noise * torch.linalg.eigvalsh(weighted.mT @ weighted).clamp_min(0).sqrt()[:, None]
        else:
            squares, axes = torch.linalg.eigh(weighted.mT @ weighted)
            h = weighted @ axes + gamma * noise * squares.clamp_min(0).sqrt()[:, None]
        h = torch.nn.functional.normalize(h, dim=-1)
        yield h


def _normal(d: int, n: int, generators: Sequence[Generator], dtype: torch.dtype) -> Tensor:
    return torch.stack([torch.randn(d, n, generator=g, dtype=dtype, device=g.device) for g in generators])


def summaries(h: Tensor) -> dict[str, Tensor]:
    """What the predictions speak of, for one state, in units that have a limit.

    Args:
        h: ``(seeds, d, N)``, rows of length one.

    Returns:
        ``moments`` of order 2, 3, 4, ``(seeds, 3)``; ``stable_rank`` r/√d; ``top`` λ_max/√d; ``above``, the eigenvalues
        of M/√d above ``LEVELS``, divided by √d; ``terms``, Tr(diag(M²)²)/d² and Tr(M³)/d², whose averages' ratio is
        α; ``histogram`` over ``EDGES``, a density of total mass rank/√d.

    Raises:
        ValueError: ``h`` is not ``(seeds, d, N)``.
    """
    checks.matrices("h", h)
    checks.require(h.ndim == 3, "h", tuple(h.shape), "of shape (seeds, d, N)")
    d, root = h.shape[1], math.sqrt(h.shape[1])
    gram = h.mT @ h / d
    x = torch.linalg.eigvalsh(gram).clamp_min(0) * root
    energy = ((h @ gram) * h).sum(-1)  # (M²)_ii / d
    moments = torch.stack([x.pow(n).sum(-1) / root for n in (2, 3, 4)], -1)
    levels, edges = x.new_tensor(LEVELS), x.new_tensor(EDGES)
    reached = (x[:, None, :] >= edges[:, None]).sum(-1)
    return {
        "moments": moments,
        "stable_rank": 1 / moments[:, 0],
        "top": x[:, -1],
        "above": (x[:, None, :] > levels[:, None]).sum(-1) / root,
        "terms": torch.stack([energy.square().sum(-1), moments[:, 1]], -1),
        "histogram": (reached[:, :-1] - reached[:, 1:]) / (EDGES[1] * root),
    }


def averages(
    h: Tensor,
    *,
    gamma: float,
    depth: int,
    burn_in: int,
    every: int,
    blocks: int,
    generator: Sequence[Generator],
    gains: Tensor | None = None,
) -> dict[str, Tensor]:
    """Averages of :func:`summaries` over depth, in blocks: ``(blocks, seeds, …)`` each.

    Args:
        h: the inputs, rows of length one.
        gamma: as in :func:`states`.
        depth: layers averaged over, a multiple of ``blocks · every``.
        burn_in: layers before them.
        every: layers between two measurements.
        blocks: number of parts, for standard errors.
        generator: one a seed.
        gains: as in :func:`states`; then the state that is measured is the weighted one, scaled to Tr M = d.

    Raises:
        ValueError: as :func:`states`, or ``depth`` is no such multiple.
    """
    for name, value in (("depth", depth), ("every", every), ("blocks", blocks)):
        checks.positive_integer(name, value)
    checks.natural("burn_in", burn_in)
    checks.require(depth % (blocks * every) == 0, "depth", depth, f"a multiple of blocks · every = {blocks * every}")
    run = states(h, gamma=gamma, depth=burn_in + depth, generator=generator, gains=gains)
    scaled = None if gains is None else (gains / gains.square().mean().sqrt())[:, None]
    parts: list[dict[str, Tensor]] = []
    for layer, state in enumerate(run, start=1 - burn_in):
        if layer <= 0 or layer % every:
            continue
        found = summaries(state if scaled is None else state * scaled)
        if (layer // every - 1) % (depth // blocks // every) == 0:
            parts.append(found)
        else:
            parts[-1] = {name: parts[-1][name] + value for name, value in found.items()}
    return {name: torch.stack([p[name] for p in parts]) * (blocks * every / depth) for name in parts[0]}


def exponents(
    d: int,
    samples: int,
    count: int,
    *,
    depth: int,
    burn_in: int,
    blocks: int,
    generator: Sequence[Generator],
) -> Tensor:
    """Lyapunov exponents of the chain without skip connections and Gaussian weights, from their exact law.

    As :func:`firststep.lyapunov.lyapunov_exponents`, with one difference: W acts on an orthonormal frame of ``count``
    columns, so its product with the frame is a Gaussian matrix of that size and is drawn as such; the frame itself is
    never needed, and every layer is factorized.

    Args:
        d: width.
        samples: N; the exponents behind the first min(d, N) are transversal.
        count: number of exponents, from ``samples`` to ``d``.
        depth: layers averaged over, a multiple of ``blocks``.
        burn_in: layers before them.
        blocks: number of parts.
        generator: one a seed.

    Returns:
        ``(blocks, seeds, count)``, float64.

    Raises:
        ValueError: an argument is not as described.
    """
    generators = checks.generators("generator", generator)
    for name, value in (("d", d), ("samples", samples), ("depth", depth), ("blocks", blocks)):
        checks.positive_integer(name, value)
    checks.natural("burn_in", burn_in)
    good = checks.is_integer(count) and samples <= count <= d
    checks.require(good, "count", count, f"an integer from samples={samples} to d={d}")
    checks.require(depth % blocks == 0, "depth", depth, f"a multiple of blocks={blocks}")
    h = unit_rows(d, samples, generators)
    coordinates = torch.linalg.qr(h).R
    found = torch.zeros(blocks, len(generators), count, dtype=torch.float64, device=h.device)
    for layer in range(burn_in + depth):
        frame = _normal(d, count, generators, torch.float64)
        length = torch.linalg.vector_norm(frame[..., :samples] @ coordinates, dim=-1, keepdim=True)
        triangle = torch.linalg.qr(frame / length, mode="r").R
        coordinates = triangle[..., :samples, :samples] @ coordinates
        coordinates = torch.where(coordinates.abs() > 1e-150, coordinates, 0)
        if layer >= burn_in:
            growth = triangle.diagonal(dim1=-2, dim2=-1).abs().log()
            found[(layer - burn_in) * blocks // depth] += growth * (blocks / depth)
    return found
