"""Numbers in the text of a page: glued by MyST-NB in the book, and filled in by a few lines of script in JupyterLab.

JupyterLab knows nothing of MyST-NB's glue and shows the name of a number in its place; see :func:`glue`.
"""

import json
import re

import IPython.display
import myst_nb

from firststep import checks, scale

# Replaces names by numbers wherever rendered Markdown shows one, now and when JupyterLab draws more of the notebook.
_FILL = """<script>(() => {
  const numbers = window.firststepNumbers ??= {};
  numbers[%s] = %s;
  const fill = () => document.querySelectorAll(".jp-MarkdownCell :is(p, li, td, th, div) > span").forEach((span) => {
    const name = span.dataset.number ?? span.textContent;
    if (!(name in numbers) || span.textContent === numbers[name] || span.children.length) return;
    span.dataset.number = name;
    span.textContent = numbers[name];
    span.style.fontWeight = "600";
  });
  let waiting = false;
  const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; fill(); }); } };
  window.firststepWatch ??= new MutationObserver(soon);
  window.firststepWatch.observe(document.body, { childList: true, subtree: true });
  fill();
})();</script>"""


def glue(name: str, value: object, display: bool = False) -> None:
    """Give a number of the text its value, which the page's Markdown shows by its name in the role ``glue:text``.

    Args:
        name: as in the text, unique in the book.
        value: what is shown; text stays as it is, but for powers of ten: 2e+08 becomes 2·10⁸.
        display: whether the cell shows it too.

    Raises:
        ValueError: the name is no text, or empty; the value has marks of Markdown, which would be shown as they are.
    """
    checks.require(isinstance(name, str) and bool(name.strip()), "name", name, "a name that the text uses")
    shown = _POWER.sub(_power_of_ten, str(value))
    checks.require(not re.search(r"[$`]|\*\*", shown), "value", value, "plain text")
    myst_nb.glue(name, shown, display=display)
    if not scale.building():
        script = _FILL % (_literal(name), _literal(shown))
        IPython.display.display({"text/html": script, "text/plain": f"{name}: {shown}"}, raw=True)


_POWER = re.compile(r"\b(\d(?:\.\d+)?)e([+-]\d+)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(number: re.Match) -> str:
    digits, exponent = number[1], int(number[2])
    if float(digits) == 0 or exponent == 0:
        return digits.rstrip("0").rstrip(".") or "0"
    power = f"10{str(exponent).translate(_RAISED)}"
    return power if digits == "1" else f"{digits}·{power}"


def _literal(text: str) -> str:
    return json.dumps(text).replace("</", "<\\/")
