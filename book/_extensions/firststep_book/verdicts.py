"""What the pages show, what the records say, and what the ledger pins: compared at the end of every build."""

import posixpath
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxRole

from firststep import scale
from firststep.book import claims, execute

LEDGER_PAGE = "book/ledger/ledger"
# Cards and the ledger's rows carry these three attributes; see firststep.book.claims.marks.
_MARK = re.compile(r'data-claim="([^"]*)" data-verdict="([^"]*)" data-scale="([^"]*)"')


def compare_everything(app: Sphinx, failure: Exception | None) -> None:
    """End the build where pages, records, ledger and pins disagree, whether or not anything was read again."""
    if failure is not None or app.builder.format != "html":
        return
    root, pages = Path(app.srcdir), sorted(app.env.found_docs)
    shown = {page: marks(Path(app.outdir) / f"{page}.html") for page in pages}
    notebooks = [page for page in pages if app.env.doc2path(page).endswith(".ipynb")]
    made = {page: execute.records_of(execute.executed(root, page)) for page in notebooks}
    ledger = claims.ledger(root / "book" / "claims.yml")
    found = claims.records(root / "_build" / "verdicts")
    if problems := disagreements(ledger, found, made, shown):
        raise SphinxError("the ledger and the book disagree:\n  " + "\n  ".join(problems))


def marks(page: Path) -> list[tuple[str, str, str]]:
    """Claim, verdict and scale wherever a page of the site shows a verdict."""
    return _MARK.findall(page.read_text(encoding="utf-8")) if page.exists() else []


def disagreements(
    ledger: dict[str, claims.Claim],
    found: dict[str, claims.Record],
    made: dict[str, list[claims.Record]],
    shown: dict[str, list[tuple[str, str, str]]],
) -> list[str]:
    """A sentence for each thing that contradicts another.

    Args:
        ledger: all claims.
        found: the records on disk.
        made: by page, the records that its executed notebook carries.
        shown: by page, the verdicts that the site shows; all pages of the book.
    """
    found = {id: record for id, record in found.items() if id in ledger}
    problems = claims.drift(ledger, found)
    for claim in ledger.values():
        if claim.page is not None:
            problems += _unsettled(claim, found.get(claim.id), shown)
    for page, records in made.items():
        problems += [
            f"{page} settles {record.id}, which book/claims.yml gives to {ledger[record.id].page}"
            for record in records
            if record.id in ledger and ledger[record.id].page != page
        ]
        problems += [
            f"{r.id}: {page} made another record than _build/verdicts holds" for r in records if found.get(r.id) != r
        ]
    for page, verdicts in shown.items():
        for id, verdict, size in verdicts:
            record = found.get(id)
            if (verdict, size) != ((record.verdict, record.scale) if record else ("open", "")):
                problems.append(f"{id}: {page} shows {verdict!r} at scale {size!r}, its record says otherwise")
    return problems


def _unsettled(claim: claims.Claim, record: claims.Record | None, shown: dict[str, list]) -> list[str]:
    if claim.page not in shown:
        return [f"{claim.id}: its page {claim.page} does not exist"]
    if record is None:
        return [f"{claim.id}: its page {claim.page} does not settle it"]
    problems = []
    if record.scale != scale.name():
        problems.append(f"{claim.id}: settled at {record.scale} scale in a book of {scale.name()} scale")
    for page in {claim.page, LEDGER_PAGE} & set(shown):
        if claim.id not in {id for id, _, _ in shown[page]}:
            problems.append(f"{claim.id}: {page} does not show its verdict")
    return problems


class ClaimRole(SphinxRole):
    """``{claim}`full_rank.lemma1` ``: the id, linked to its verdict; a claim without a page stays unlinked."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        claim = claims.ledger().get(self.text)
        if claim is None:
            message = self.inliner.reporter.error(f"no claim {self.text!r} in book/claims.yml", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.rawtext)], [message]
        name = nodes.literal(self.text, self.text)
        if claim.page is None:
            return [name], []
        here = posixpath.dirname(self.env.docname)
        return [nodes.reference("", "", name, refuri=f"{posixpath.relpath(claim.page, here)}.html#{claim.id}")], []
