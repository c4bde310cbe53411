"""The book's own part of the build, so that ``jupyter-book build .`` alone gives the whole book.

1. ``pages``: pages are executed several at a time before Sphinx reads them, and what a notebook's file carries never
   counts; see :mod:`firststep.book.execute`, and ``page_keys`` for what makes a page run again.
2. ``verdicts``: what the pages show, the records, the ledger and its pins are compared at the end of every build; the
   role ``{claim}`` links a claim to the place where it is settled.
3. ``folding``: the form of a page: opener, folded code, drawer.
4. ``maps``: the directive ``{claim-map}``, a chapter's claims as a map and as a table, with the verdicts of this build.
5. ``assets``: what the pages need in a browser, from this host; ``weight``: what they do not need.
"""

from sphinx.application import Sphinx

import firststep
from firststep_book import assets, folding, maps, pages, verdicts, weight


def setup(app: Sphinx) -> dict:
    app.add_role("claim", verdicts.ClaimRole())
    app.add_directive("claim-map", maps.ClaimMap)
    app.add_node(maps.claim_map)
    app.connect("config-inited", assets.leave_thebe_out)
    app.connect("builder-inited", pages.build_alone)
    app.connect("builder-inited", assets.add_assets)
    app.connect("env-get-outdated", pages.execute_and_find_stale)
    app.connect("env-get-outdated", maps.find_stale, priority=600)  # once the pages have run
    app.connect("source-read", pages.put_key_into_kernelspec)
    app.connect("doctree-resolved", folding.rearrange)
    app.connect("doctree-resolved", maps.draw)
    app.connect("html-page-context", assets.add_scripts_and_icon)
    app.connect("build-finished", weight.lighten)
    app.connect("build-finished", verdicts.compare_everything)
    return {"version": firststep.__version__, "parallel_read_safe": True, "parallel_write_safe": True}
