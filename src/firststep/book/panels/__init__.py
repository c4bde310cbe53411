"""The book's explorables, by chapter, each module with its ``PANELS``: a name, and the function that makes it."""

import pkgutil
from collections.abc import Callable
from importlib import import_module

from firststep.book.explore import Explorable


def every_panel() -> dict[str, Callable[[], Explorable]]:
    """All explorables of all chapters, by name.

    A chapter's module is imported only here or by its own pages, so that a page does not depend on other chapters.

    Raises:
        ValueError: two chapters use the same name.
    """
    panels: dict[str, Callable[[], Explorable]] = {}
    for module in pkgutil.iter_modules(__path__):
        for name, make in import_module(f"{__name__}.{module.name}").PANELS.items():
            if name in panels:
                raise ValueError(f"name must be unique among the explorables, got name={name!r} twice")
            panels[name] = make
    return panels
