"""Numbers in the text of a page: glued by MyST-NB in the book, and filled in by a few lines of script in JupyterLab.

JupyterLab knows nothing of MyST-NB's glue and shows the name of a number in its place; see :func:`glue`.
"""

import json

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
        value: what is shown; text stays as it is.
        display: whether the cell shows it too.

    Raises:
        ValueError: the name is no text, or empty.
    """
    checks.require(isinstance(name, str) and bool(name.strip()), "name", name, "a name that the text uses")
    myst_nb.glue(name, value, display=display)
    if not scale.building():
        script = _FILL % (_literal(name), _literal(str(value)))
        IPython.display.display({"text/html": script, "text/plain": f"{name}: {value}"}, raw=True)


def _literal(text: str) -> str:
    return json.dumps(text).replace("</", "<\\/")
