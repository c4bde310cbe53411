"""What a neural network's initialization decides before the first step of gradient descent.

The modules, from the bottom up: :mod:`~firststep.scale` (how large a run is), :mod:`~firststep.spectra`
(ranks), :mod:`~firststep.finite_field` (ranks without round-off), :mod:`~firststep.inits` (initializers),
:mod:`~firststep.linear` (deep linear networks), :mod:`~firststep.nets` (nonlinear ones),
:mod:`~firststep.data` (tasks and images), :mod:`~firststep.claims` (verdicts),
:mod:`~firststep.figures` and :mod:`~firststep.explore` (what a page shows).
"""

__version__ = "0.1.0"
