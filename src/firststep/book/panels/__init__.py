"""The book's explorables: a module a panel, which holds the function of the same name that is the panel."""

import pkgutil
from importlib import import_module
from types import SimpleNamespace

from firststep.book.explore import Explorable


def every_panel() -> dict[str, Explorable]:
    """All explorables by name.

    A page imports the module of its own panel, so that it does not depend on the others.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: getattr(import_module(f"{__name__}.{name}"), name) for name in names}


_CHAPTERS = {  # until the pages import their panels by name
    "full_rank": ("plateau", "scalar_pair"),
    "imbalance": ("imbalance_rate", "imbalance_min_norm"),
    "zero_asymmetric": ("zas_depth_and_step", "zas_stable_manifold"),
    "curvature": ("depth_and_scheme", "neglected_term"),
    "rank_collapse": ("dtype_and_tolerance", "soft_rank_and_bound"),
}


def __getattr__(chapter: str) -> SimpleNamespace:
    if chapter not in _CHAPTERS:
        raise AttributeError(chapter)
    modules = {name: import_module(f"{__name__}.{name}") for name in _CHAPTERS[chapter]}
    inside = {key: value for module in modules.values() for key, value in vars(module).items() if key[0] != "_"}
    panels = {name.removeprefix("zas_"): inside[name] for name in modules}
    makers = {name: (lambda panel=panel: panel) for name, panel in panels.items()}
    return SimpleNamespace(**inside | makers, PANELS=makers)
