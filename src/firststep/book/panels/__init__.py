"""The book's explorables: a module a panel, which holds the function of the same name that is the panel."""

import pkgutil
from importlib import import_module

from firststep.book.explore import Explorable


def every_panel() -> dict[str, Explorable]:
    """All explorables by name.

    A page imports the module of its own panel, so that it does not depend on the others.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: getattr(import_module(f"{__name__}.{name}"), name) for name in names}
