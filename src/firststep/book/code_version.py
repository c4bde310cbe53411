"""Which code a recorded run came from: a hash of the definitions that its function reaches.

From the function on, every name is followed to the function, class or constant that it means, through the modules of
``firststep`` and the function's own. Docstrings, comments and layout do not count, nor does what the run cannot reach:
a new function in a module leaves the version alone, a changed constant two modules away does not. What only a string
names (``getattr``) and what other libraries do is not seen; their versions are recorded beside it.
"""

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import firststep

PACKAGE = Path(firststep.__file__).parent
Point = tuple[str, str]  # a module and a name in it; the name "" stands for what runs on import and defines nothing


@dataclass(frozen=True)
class _Module:
    """What the names of a module mean."""

    defined: dict[str, list[ast.stmt]]
    imported: dict[str, list[Point]]  # a whole module is ("firststep.chain", "*")


@cache
def version(run: Callable) -> str | None:
    """Sixteen hexadecimal digits that name the code of a run.

    Returns:
        The hash, or ``None`` if the function has no source file, as one that was typed in. It is read once a process.
    """
    path = getattr(sys.modules.get(run.__module__), "__file__", None)
    if path is None or not Path(path).is_file():
        return None
    found = reached(run.__module__, run.__qualname__.split(".")[0], Path(path))
    text = repr(sorted((name, shape) for (_, name), shape in found.items()))  # without modules: functions may move
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reached(module: str, name: str, path: Path) -> dict[Point, str]:
    """The definitions that a name reaches, without docstrings, by module and name.

    Args:
        module: where to begin.
        name: a function, class or constant of that module.
        path: the file of that module.
    """
    found: dict[Point, str] = {}
    seen, waiting = set(), [(module, name)]
    while waiting:
        where, name = point = waiting.pop()
        file = path if where == module else _file(where)
        if point in seen or file is None:
            continue
        seen.add(point)
        names = _names(file)
        statements = names.defined.get(name, [])
        if statements:
            found[point] = repr([_shape(statement) for statement in statements])
            waiting += [(where, ""), *_uses(statements, where, names)]
        else:
            waiting += _elsewhere(where, name, names)
    return found


def _elsewhere(module: str, name: str, names: _Module) -> list[Point]:
    """What a name means that its module does not define: all of it, what it imports, or a module below it."""
    if name == "*":
        return [(module, each) for each in names.defined]
    below = f"{module}.{name}"
    return names.imported.get(name, []) + ([(below, "*")] if name and _file(below) else [])


def _file(module: str) -> Path | None:
    """The file of a module of the package."""
    top, *parts = module.split(".")
    stem = PACKAGE.joinpath(*parts)
    files = [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if top == "firststep" and path.is_file()]
    return files[0] if files else None


@cache
def _names(path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_text(statement):
            for name in _targets(statement):
                defined.setdefault(name, []).append(statement)
    imported: dict[str, list[Point]] = {}
    for node in ast.walk(tree):  # an import inside a function counts too
        for name, point in _imports(node):
            imported.setdefault(name, []).append(point)
    return _Module(defined, imported)


def _targets(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module defines; "" if it is of another kind."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return [""]


def _imports(node: ast.AST) -> Iterator[tuple[str, Point]]:
    if isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name.split(".")[0], (alias.name, "*")) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield alias.asname or alias.name, (whole, "*") if _file(whole) else (node.module, alias.name)


def _uses(statements: list[ast.stmt], module: str, names: _Module) -> Iterator[Point]:
    """What the names in some statements mean; of a module that is imported, only the attributes that are asked for."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    asked = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Name):
            if node.id in names.defined:
                yield module, node.id
            for where, name in names.imported.get(node.id, []):
                yield where, asked.get(id(node), "*") if name == "*" else name


def _shape(node: object) -> object:
    """A tree as nested lists without positions, docstrings and empty fields: hardly of one version of Python."""
    if isinstance(node, list):
        return [_shape(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _is_text(node.body[0]):
        fields["body"] = node.body[1:]
    return [type(node).__name__, *((name, _shape(value)) for name, value in fields.items() if value not in (None, []))]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
