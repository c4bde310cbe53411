"""The form of a page: result first, code folded to a line, machinery in a drawer at the end.

A notebook is written in reading order for JupyterLab, where nothing is hidden. For the book its doctree is rearranged:

- A code cell whose first line is a comment folds to that line, with its length and its seconds. A cell tagged ``open``
  stays open. Cells without a first comment (imports, numbers for the text, verdicts) go to the drawer.
- The output of the cell tagged ``lead`` follows the summary, and a small copy of its figure stands in the opener, with
  the verdicts of the page and what the admonition of class ``headline`` holds.
"""

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from firststep.book import claims, execute

_EMPTY_HEAD = re.compile(r"<th((?: [^>]*)?)>(?:&nbsp;|\s)*</th>")  # pandas puts one above every index; it names nothing


def rearrange(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Bring a notebook's page into its form; on other pages there is nothing to do."""
    cells = [node for node in doctree.findall(nodes.container) if node.get("nb_element") == "cell_code"]
    if not cells or app.builder.format != "html":
        return
    for output in doctree.findall(nodes.raw):
        if "<th" in output.astext():
            output.children = [nodes.Text(_EMPTY_HEAD.sub(r"<td\1></td>", output.astext()))]
            output.rawsource = output.astext()
    seconds = execute.cell_seconds(Path(app.srcdir), docname)
    _fold(doctree, cells, seconds)
    lead = _take_lead(cells)
    _open_page(doctree, docname, lead)


# Folds


def label(source: str) -> str | None:
    """What a cell does, in the words of its first line; ``None`` where that is no comment."""
    first = source.lstrip().split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("# ") else None


def summary(words: str, source: str, seconds: float | None) -> str:
    """One line: what the cell does, how long it is, and what it took where a reader would notice."""
    lines = sum(bool(line.strip()) for line in source.splitlines()) - 1
    parts = [html.escape(words), f"{lines} line{'s' * (lines != 1)}"]
    if seconds is not None and seconds >= 1:
        parts.append(f"{seconds:.0f} s")
    return f"{parts[0]} <small>· {' · '.join(parts[1:])}</small>"


def _fold(doctree: nodes.document, cells: list[nodes.container], seconds: dict[int, float]) -> None:
    drawer = []
    for cell in cells:
        source = next((part for part in cell if "cell_input" in part.get("classes", ())), None)
        if source is None or "open" in _tags(cell):
            continue
        words = label(source.astext())
        place = cell.index(source)
        cell.remove(source)
        if words is None:
            drawer.append(source)
            continue
        head = summary(words, source.astext(), seconds.get(cell["cell_index"]))
        cell[place:place] = _details("fold", head, [source])
    if drawer:
        lines = sum(len(source.astext().splitlines()) for source in drawer)
        head = f"Imports, numbers in the text, verdicts <small>· {len(drawer)} cells · {lines} lines</small>"
        _end(doctree).extend(_details("fold drawer", head, drawer))


def _details(classes: str, head: str, inside: list[nodes.Node]) -> list[nodes.Node]:
    return [_raw(f'<details class="{classes}"><summary>{head}</summary>'), *inside, _raw("</details>")]


def _raw(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


def _tags(cell: nodes.container) -> list[str]:
    return cell.get("cell_metadata", {}).get("tags", [])


def _end(doctree: nodes.document) -> nodes.Element:
    return next(doctree.findall(nodes.section), doctree)


# The opener


def _take_lead(cells: list[nodes.container]) -> nodes.Node | None:
    """The output that carries the page's idea, taken from its place."""
    for cell in cells:
        if "lead" in _tags(cell):
            for part in cell:
                if "cell_output" in part.get("classes", ()):
                    cell.remove(part)
                    part["classes"].append("lead")
                    return part
    return None


def _open_page(doctree: nodes.document, docname: str, lead: nodes.Node | None) -> None:
    """Title and question; verdicts, number and small picture side by side; the summary; the lead."""
    page = _end(doctree)
    headline = _headline(page)
    listed = next((node for node in page.findall(nodes.admonition) if _is_list_of_claims(node)), None)
    first = next((k for k, node in enumerate(page) if isinstance(node, nodes.section)), len(page))
    until = next((k for k in range(first) if _is_cell(page[k])), first)
    parts = [part for part in (_verdicts(docname), headline, _small(lead)) if part is not None]
    if listed is not None:
        listed.parent.remove(listed)
        until -= 1
    if lead is not None:
        page.insert(max(until, 1), lead)
    if parts:
        strip = nodes.container("", *parts, classes=["opener", f"parts-{len(parts)}"])
        page.insert(_behind_question(page), strip)


def _headline(page: nodes.Element) -> nodes.container | None:
    """The number that matters, taken from its place; an admonition in the notebook, since JupyterLab shows those."""
    for node in [*page.findall(nodes.admonition), *page.findall(nodes.container)]:
        if "headline" in node["classes"]:
            node.parent.remove(node)
            inside = [part for part in node if not isinstance(part, nodes.title)]
            return nodes.container("", *inside, classes=["headline"])
    return None


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "cell" in node["classes"]


def _is_list_of_claims(node: nodes.admonition) -> bool:
    return node.children and node[0].astext() in ("Claims on this page", "Claim on this page")


def _behind_question(page: nodes.Element) -> int:
    """Behind the title, and behind the question where the first paragraph is one."""
    place = page.first_child_matching_class(nodes.title) + 1
    asks = len(page) > place and isinstance(page[place], nodes.paragraph) and len(page[place]) == 1
    return place + (asks and isinstance(page[place][0], nodes.emphasis))


def _verdicts(docname: str) -> nodes.raw | None:
    """The claims of the page, each with its verdict, linked to the card."""
    records = claims.records()
    chips = [_chip(claim, records.get(claim.id)) for claim in claims.ledger().values() if claim.page == docname]
    return _raw(f'<ul class="claims" aria-label="Claims on this page">{"".join(chips)}</ul>') if chips else None


def _chip(claim: claims.Claim, record: claims.Record | None) -> str:
    badge = claims.badge(record and record.verdict, claims.marks(claim.id, record))
    return f'<li><a href="#{claim.id}">{badge} <span>{claims.typeset(claim.title)}</span></a></li>'


_FIGURE = re.compile(r'<svg[^>]*?viewBox="([^"]+)".*?<g id="([^"]+figure_\d+)">', re.DOTALL)


def _small(lead: nodes.Node | None) -> nodes.raw | None:
    """The lead's figure again, small: a reference to it, which weighs nothing."""
    markup = "" if lead is None else "".join(node.astext() for node in lead.findall(nodes.raw))
    found = _FIGURE.search(markup)
    if found is None:
        return None
    box, name = found.groups()
    picture = f'<svg viewBox="{box}" aria-hidden="true"><use href="#{name}"/></svg>'
    return _raw(f'<div class="small" aria-hidden="true">{picture}</div>')
