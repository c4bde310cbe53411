"""Evidence in rows: what was measured, its value, and the bound that it has to meet.

A number that decides is a number that is shown: the verdict of a claim follows from its rows alone, and so does the
card that the reader sees. A row computes for itself whether it is met; nan never is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from firststep import checks

Relation = Literal["below", "at most", "above", "at least", "near", "equal", "between"]
Value = int | float | str
GROUPS = {
    "printed": "the paper's statement",
    "repaired": "the repaired statement",
    "ours": "the book's own prediction, which never refutes a paper",
    "control": "with an assumption dropped the check has to fail",
    "decides_if": "else the run cannot decide",
}


_MEETS: dict[Relation, Callable[..., bool]] = {
    "below": lambda x, bound: x < bound,
    "at most": lambda x, bound: x <= bound,
    "above": lambda x, bound: x > bound,
    "at least": lambda x, bound: x >= bound,
    "near": lambda x, target, within: abs(x - target) <= within,
    "equal": lambda x, target: x == target,
    "between": lambda x, low, high: low <= x <= high,
}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: what was measured, in a few words; ``$…$`` is typeset.
        value: what came out; nan and infinity are kept as text, because JSON knows neither.
        relation: how the value has to stand to the bound.
        bound: one number or word; two for ``near`` (target, largest distance) and ``between`` (both ends belong).
    """

    what: str
    value: Value
    relation: Relation
    bound: tuple[Value, ...]

    @property
    def met(self) -> bool:
        """Whether the value stands to the bound as it has to; nan never does."""
        return bool(_MEETS[self.relation](_plain(self.value), *map(_plain, self.bound)))


def below(what: str, value: float, bound: float) -> Row:
    """``value < bound``."""
    return _row(what, value, "below", bound)


def at_most(what: str, value: float, bound: float) -> Row:
    """``value <= bound``."""
    return _row(what, value, "at most", bound)


def above(what: str, value: float, bound: float) -> Row:
    """``value > bound``."""
    return _row(what, value, "above", bound)


def at_least(what: str, value: float, bound: float) -> Row:
    """``value >= bound``."""
    return _row(what, value, "at least", bound)


def near(what: str, value: float, target: float, within: float) -> Row:
    """``|value - target| <= within``."""
    return _row(what, value, "near", target, within)


def between(what: str, value: float, low: float, high: float) -> Row:
    """``low <= value <= high``."""
    return _row(what, value, "between", low, high)


def equal(what: str, value: Value, target: Value) -> Row:
    """The same number or the same word, exactly; for counts: ``equal("architectures at their ceiling", 240, 240)``."""
    if isinstance(value, str) or isinstance(target, str):
        same_kind = isinstance(value, str) and isinstance(target, str)
        checks.require(same_kind, "value", value, "a word where the target is one, and a number where it is a number")
        return Row(_words(what), value, "equal", (target,))
    return _row(what, value, "equal", target)


def _row(what: str, value: object, relation: Relation, *bound: object) -> Row:
    numbers = [_number("value", value), *(_number("bound", b) for b in bound)]
    checks.require(not any(math.isnan(b) for b in numbers[1:]), "bound", bound, "numbers, not nan")
    value, *bound = (x if math.isfinite(x) else str(x) for x in numbers)
    return Row(_words(what), value, relation, tuple(bound))


def _words(what: object) -> str:
    checks.require(isinstance(what, str) and bool(what.strip()), "what", what, "words that say what was measured")
    return what


def _plain(value: Value) -> Value:
    return float(value) if value in ("inf", "-inf", "nan") else value


def _number(name: str, value: object) -> int | float:
    """A plain number of what Python, numpy or torch call one; a truth value is none."""
    single = getattr(value, "ndim", 0) == 0 and hasattr(value, "item")
    plain = value.item() if single else value
    checks.require(isinstance(plain, Real) and not isinstance(plain, bool), name, value, "one number")
    return int(plain) if isinstance(plain, Integral) else float(plain)


def rows(name: str, given: Sequence[Row]) -> list[Row]:
    """A group of rows, checked.

    Raises:
        ValueError: something in it is not a row, or two rows say the same words.
    """
    listed = isinstance(given, list | tuple) and all(isinstance(row, Row) for row in given)
    checks.require(listed, name, given, "a list of rows such as below(…) and equal(…)")
    words = [row.what for row in given]
    checks.require(len(set(words)) == len(words), name, words, "rows that say different things")
    return list(given)


# Words


def sentence(row: Row) -> str:
    """A row in words, with ``$…$`` for what is typeset: ``largest error: $2.1 \\cdot 10^{-9}$, below $10^{-8}$``."""
    return f"{row.what}: {worded(row.value, row.bound)}, {requirement(row)}"


def requirement(row: Row) -> str:
    """What was asked of the value, such as ``below $10^{-8}$`` or ``within 0.1 of 2``."""
    bound = [worded(b) for b in row.bound]
    match row.relation:
        case "near":
            return f"within {bound[1]} of {bound[0]}"
        case "between":
            return f"between {bound[0]} and {bound[1]}"
        case "equal":
            return f"asked for {bound[0]}"
    return f"{row.relation} {bound[0]}"


def worded(value: Value, beside: Sequence[Value] = ()) -> str:
    """A value as a reader wants it: few digits, but enough that it differs from the bounds ``beside`` it if it does."""
    if isinstance(value, str):
        return {"inf": "$\\infty$", "-inf": "$-\\infty$", "nan": "not a number"}.get(value, value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−") if abs(value) < 10**7 else _power(value, 3)
    others = [b for b in beside if not isinstance(b, str) and b != value]
    for digits in range(3, 18):
        if all(float(f"{value:.{digits}g}") != float(f"{b:.{digits}g}") for b in others):
            break
    return _power(value, digits)


def _power(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    power = int(exponent)
    if -4 < power < 6:
        text = f"{float(f'{value:.{digits}g}'):,.{max(digits - 1 - power, 0)}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
    scientific = {"1": "", "-1": "-"}.get(mantissa, f"{mantissa} \\cdot ")
    return f"${scientific}10^{{{power}}}$"
