"""What a neural network's initialization decides before the first step of gradient descent.

The modules, from the bottom up: :mod:`~firststep.scale` (how large a run is), :mod:`~firststep.spectra`
(ranks), :mod:`~firststep.finite_field` (ranks without round-off), :mod:`~firststep.inits` (initializers),
:mod:`~firststep.linear` (deep linear networks; with :mod:`~firststep.flow`, :mod:`~firststep.two_layer` and
:mod:`~firststep.zas`, their gradient flow and exact reductions), :mod:`~firststep.curvature` (layer Hessians),
:mod:`~firststep.chain` (representations in deep random networks), :mod:`~firststep.nets` (nonlinear networks),
:mod:`~firststep.training` (pre-training), :mod:`~firststep.data` (tasks and images), :mod:`~firststep.sweep` and
:mod:`~firststep.recorded` (long runs), :mod:`~firststep.claims` (verdicts), :mod:`~firststep.figures` and
:mod:`~firststep.explore` (what a page shows).
"""

__version__ = "0.1.0"
