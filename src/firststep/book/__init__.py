"""The press: what turns the mathematics of :mod:`firststep` into pages.

Verdicts (:mod:`~firststep.book.claims`), figures (:mod:`~firststep.book.figures`), panels that a reader can move
(:mod:`~firststep.book.explore`, :mod:`firststep.book.panels`), and long runs with their provenance
(:mod:`~firststep.book.sweep`, :mod:`~firststep.book.recorded`). Needs ``pip install firststep[book]``.
"""
