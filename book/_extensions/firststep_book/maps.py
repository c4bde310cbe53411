"""The directive ``{claim-map}`` on the index page of a chapter: its claims as a map, and as a table below.

It stands empty until the pages have run and all titles are known, so that it shows the verdicts of this build.
"""

import hashlib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from firststep.book import claim_map as drawing
from firststep.book import claims, overview


class claim_map(nodes.General, nodes.Element):
    """Where the map of a chapter goes."""


class ClaimMap(SphinxDirective):
    """``{claim-map} full_rank``: the argument is the prefix of the chapter's claims."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        chapter = self.arguments[0]
        if chapter not in {claim.chapter for claim in claims.ledger().values()}:
            raise self.error(f"no claim of a chapter {chapter!r} in book/claims.yml")
        return [claim_map("", chapter=chapter)]


def find_stale(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages with a map are read again when a verdict or an entry of the ledger is another than when they were drawn."""
    root = Path(app.srcdir)
    records = claims.records(root / "_build" / "verdicts").values()
    shown = sorted((record.id, record.verdict, record.scale) for record in records)
    ledger = (root / "book" / "claims.yml").read_bytes()
    now = hashlib.sha256(repr(shown).encode() + ledger).hexdigest()
    before, env.firststep_maps_show = getattr(env, "firststep_maps_show", None), now
    if before == now:
        return []
    markdown = [name for name in env.found_docs if env.doc2path(name).endswith(".md")]
    return [name for name in markdown if "{claim-map}" in Path(env.doc2path(name)).read_text(encoding="utf-8")]


def draw(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the map and the table where the directive stood."""
    for node in list(doctree.findall(claim_map)):
        if app.builder.format != "html":
            node.parent.remove(node)
            continue
        names = page_names(app.env, docname, node["chapter"])
        listed = [claim for claim in claims.ledger().values() if claim.chapter == node["chapter"]]
        records = claims.records(Path(app.srcdir) / "_build" / "verdicts")

        def href(page: str) -> str:
            return app.builder.get_relative_uri(docname, page)

        map_ = drawing.render(node["chapter"], records, href)
        table = overview.table(_in_order(listed, names), records, href, names)
        node.replace_self(nodes.raw("", map_ + table, format="html"))


def page_names(env: BuildEnvironment, docname: str, chapter: str) -> dict[str, str]:
    """The pages on which a chapter settles its claims, in reading order, and what they are called."""
    settling = {c.page: None for c in claims.ledger().values() if c.chapter == chapter and c.page}
    order = [page for page in env.toctree_includes.get(docname, []) if page in settling]
    titles = {page: env.titles[page].astext() for page in settling if page in env.titles}
    return {
        page: titles.get(page, page.rsplit("/", 1)[-1]) for page in [*order, *(p for p in settling if p not in order)]
    }


def _in_order(listed: list[claims.Claim], names: dict[str, str]) -> list[claims.Claim]:
    """Claims in the order of the pages, and as in the ledger within a page."""
    place = {page: k for k, page in enumerate(names)}
    return sorted(listed, key=lambda claim: place.get(claim.page, len(place)))
