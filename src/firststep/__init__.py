"""What a neural network's initialization decides before the first step of gradient descent.

This package is the mathematics: models, initializers, metrics and dynamics, on torch, numpy and scipy alone. What makes
a book of it (verdicts, figures, panels, long runs) is in :mod:`firststep.book`, which imports from here and is never
imported from here.
"""

__version__ = "0.1.0"
