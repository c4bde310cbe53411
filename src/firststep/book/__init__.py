"""The press: what turns the mathematics of :mod:`firststep` into pages.

Verdicts (:mod:`~firststep.book.claims`), figures (:mod:`~firststep.book.figures`), panels that a reader can move
(:mod:`~firststep.book.explore`, :mod:`firststep.book.panels`), and long runs with their provenance
(:mod:`~firststep.book.sweep`, :mod:`~firststep.book.recorded`). Needs ``pip install firststep[book]``.
"""

import sys

# On its import jsonschema, which altair needs, compiles a grammar of international addresses if it finds this package
# of JupyterLab's. That takes over a second in each kernel, and no chart has such an address.
_GRAMMAR = "rfc3987_syntax"
if _GRAMMAR not in sys.modules:
    sys.modules[_GRAMMAR] = None
    import jsonschema  # noqa: F401

    del sys.modules[_GRAMMAR]
