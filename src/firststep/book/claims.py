"""Settling a claim: the verdict is computed from what was measured, shown on the page, and recorded.

The ledger has two halves. The static one, ``book/claims.yml``, holds what is known before anything runs: each
claim's statement, place in its paper, criterion, page, and the verdict that was pinned at CPU scale. The other
half is ``_build/verdicts/<id>.json``, one record a claim, written by :func:`settle` when a page runs.
"""

import html
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import yaml
from IPython.display import display

from firststep import checks, scale
from firststep.book import evidence, provenance
from firststep.book.evidence import Row

VERDICTS = {
    "holds": "measured inside the stated assumptions, at the paper's own scale or for a statement without one",
    "holds_reduced": "the same, at a smaller scale than the paper's",
    "corrected": "false or undefined as printed, true after a repair that the page states and tests",
    "refuted": "a counterexample inside the stated assumptions is on the page",
    "inconclusive": "what was run cannot decide it; the page says what would",
}
HEADINGS = {
    "printed": "The statement",
    "repaired": "The repaired statement",
    "ours": "The book's own prediction",
    "control": "Control",
    "decides_if": "Needed to decide",
}
# JupyterLab has no style sheet of the book; its own variables follow its themes.
LIVE_STYLE = """<style>
section.verdict { border-left: 4px solid #77818f; padding: 0.5em 1em; background: rgba(127, 127, 127, 0.08); }
section.verdict.holds, section.verdict.holds_reduced { border-color: #2a9d6a; }
section.verdict.corrected { border-color: #c98a1b; } section.verdict.refuted { border-color: #d9534a; }
section.verdict .badge { border: 1px solid; border-radius: 1em; padding: 0 0.6em; font-weight: 600; }
section.verdict .evidence { display: grid; grid-template-columns: 3fr 2fr; gap: 1.5em; }
section.verdict ul { list-style: none; padding: 0; margin: 0; }
section.verdict .evidence i { font-style: normal; opacity: 0.75; }
section.verdict li.met > span:first-child { color: #2a9d6a; }
section.verdict li.missed > span:first-child { color: #d9534a; }
</style>"""
_settled: set[str] = set()  # by this process
_started = time.perf_counter()


@dataclass(frozen=True)
class Claim:
    """One entry of ``book/claims.yml``; the file's header explains the keys."""

    id: str
    title: str
    locator: str
    statement: str
    criterion: str
    page: str | None
    needs: str
    pinned: str | None
    uses: tuple[str, ...] = ()

    @property
    def chapter(self) -> str:
        return self.id.split(".")[0]


@dataclass(frozen=True)
class Record:
    """What one run measured about one claim: the rows by group, and where they come from."""

    id: str
    verdict: str
    prediction: str
    rows: dict[str, list[Row]]
    criterion: str
    no_control: str | None
    repair: str | None
    reduced: str | None
    undecided: str | None
    scale: str
    dtype: str
    seeds: str
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, content: dict) -> "Record":
        """The record of what JSON holds.

        Raises:
            TypeError, ValueError, AttributeError: ``content`` is not what :func:`write` wrote.
        """
        rows = {
            group: [Row(**row | {"bound": tuple(row["bound"])}) for row in given]
            for group, given in content["rows"].items()
        }
        record = cls(**content | {"rows": rows})
        checks.one_of("verdict", record.verdict, VERDICTS)
        for group in record.rows:
            checks.one_of("group", group, evidence.GROUPS)
        follows = verdict(rows, reduced=record.reduced, undecided=record.undecided)
        checks.require(record.verdict == follows, "verdict", record.verdict, f"what follows from its rows, {follows!r}")
        return record

    @property
    def counted(self) -> tuple[int, int]:
        """How many rows are met, and how many there are."""
        all_rows = [row for given in self.rows.values() for row in given]
        return sum(row.met for row in all_rows), len(all_rows)


def root() -> Path:
    """The checkout that holds the book: the nearest folder above the working directory, else the package's own.

    Raises:
        ValueError: no ``book/claims.yml`` in any of them.
    """
    candidates = [*(Path.cwd() / "x").parents, *Path(__file__).resolve().parents]
    for folder in candidates:
        if (folder / "book" / "claims.yml").is_file():
            return folder
    raise ValueError(f"book/claims.yml must lie in a folder above the working directory, got cwd={str(Path.cwd())!r}")


@cache
def ledger(path: Path | None = None) -> dict[str, Claim]:
    """All claims by id, in the order of the file.

    Raises:
        ValueError: an entry lacks a key or has an unknown one, an id stands twice, or a verdict is unknown.
    """
    path = path or root() / "book" / "claims.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["claims"]
    keys = {f.name for f in fields(Claim)}
    claims: dict[str, Claim] = {}
    for entry in entries:
        good = isinstance(entry, dict) and set(entry) | {"uses"} == keys
        checks.require(good, "entry", entry, f"a mapping with the keys {sorted(keys)}, of which uses may be missing")
        claim = Claim(**entry | {"uses": tuple(entry.get("uses", ()))})
        checks.require(claim.id not in claims, "id", claim.id, "unique in the ledger")
        checks.one_of("needs", claim.needs, scale.SCALES)
        if claim.pinned is not None:
            checks.one_of("pinned", claim.pinned, VERDICTS)
        claims[claim.id] = claim
    for claim in claims.values():
        unknown = [id for id in claim.uses if id not in claims or id == claim.id]
        checks.require(not unknown, f"uses of {claim.id}", unknown, "ids of other claims")
    return claims


def papers() -> dict[str, dict]:
    """What ``book/claims.yml`` says of each paper, by the prefix of its claims."""
    return yaml.safe_load((root() / "book" / "claims.yml").read_text(encoding="utf-8"))["papers"]


def verdict(rows: Mapping[str, Sequence[Row]], *, reduced: str | None = None, undecided: str | None = None) -> str:
    """The verdict that follows from the evidence; nobody types one.

    Args:
        rows: by group of :data:`firststep.book.evidence.GROUPS`; without ``repaired`` there is no repair.
        reduced: how the run was smaller than the paper's, or ``None``.
        undecided: why the run cannot decide the claim, or ``None``.

    Returns:
        A key of ``VERDICTS``. A check whose control is not met decides nothing, and ``ours`` does not count.
    """
    met = {group: all(row.met for row in given) for group, given in rows.items()}
    if undecided or not (met.get("control", True) and met.get("decides_if", True)):
        return "inconclusive"
    if met["printed"]:
        return "holds_reduced" if reduced else "holds"
    return "corrected" if rows.get("repaired") and met["repaired"] else "refuted"


def settle(
    id: str,
    *,
    prediction: str,
    printed: Sequence[Row],
    control: Sequence[Row] = (),
    no_control: str | None = None,
    repair: str | None = None,
    repaired: Sequence[Row] = (),
    ours: Sequence[Row] = (),
    decides_if: Sequence[Row] = (),
    reduced: str | None = None,
    undecided: str | None = None,
    seeds: str,
    dtype: str,
) -> None:
    """Compute a claim's verdict, show it as a card, and leave a record.

    Args:
        id: as in the ledger, such as ``full_rank.lemma1``.
        prediction: what was predicted before the measurement, with its numbers.
        printed: what the paper's statement requires; if every row is met, it holds.
        control: what has to come out where an assumption is dropped, so that the check is seen to fail.
        no_control: why there is none, where there is none.
        repair: the repaired statement, if there is one.
        repaired: what the repaired statement requires.
        ours: what the book predicts beyond the paper; shown, and never held against the paper.
        decides_if: what the run must have reached to decide anything.
        reduced: how the run was smaller than the paper's.
        undecided: why no run of this size decides; below the scale that the ledger asks for it is filled in.
        seeds: which seeds were run.
        dtype: floating-point type, and tolerance where one matters.

    Raises:
        ValueError: the id is not in the ledger; nothing is printed, or what is given is not rows; a repair is judged
            but not stated; control and the reason for having none are both given or both missing; or, where the book
            is built, the claim was settled before.
    """
    claims = ledger()
    checks.require(isinstance(id, str) and id in claims, "id", id, "an id of book/claims.yml")
    checks.require((repair is None) == (not repaired), "repair", repair, "given together with repaired")
    checks.require((no_control is None) == bool(control), "no_control", no_control, "given exactly without a control")
    checks.require(bool(printed), "printed", printed, "at least one row")
    checks.require(not (scale.building() and id in _settled), "id", id, "settled once: its page settles it twice")
    claim = claims[id]
    if scale.SCALES.index(scale.name()) < scale.SCALES.index(claim.needs):
        undecided = f"run at {scale.name()} scale, which shows that the page works but settles nothing"
    if scale.rehearsing():
        undecided = "a rehearsal, which shows that the page runs at this size but settles nothing"
    groups = {"printed": printed, "repaired": repaired, "ours": ours, "control": control, "decides_if": decides_if}
    rows = {group: evidence.rows(group, given) for group, given in groups.items() if given}
    record = Record(
        id=id,
        verdict=verdict(rows, reduced=reduced, undecided=undecided),
        prediction=prediction,
        rows=rows,
        criterion=claim.criterion,
        no_control=no_control,
        repair=repair,
        reduced=reduced,
        undecided=undecided,
        scale=scale.name(),
        dtype=dtype,
        seeds=seeds,
        seconds=_seconds_since_last(),
        versions=provenance.versions(),
    )
    _settled.add(id)
    if not scale.rehearsing():
        write(record)
    markup = card(claim, record) if scale.building() else LIVE_STYLE + card(claim, record)
    bundle = {"text/html": markup, "text/plain": plain(record)}
    display(bundle, raw=True, metadata={"firststep": asdict(record)})


def write(record: Record, folder: Path | None = None) -> None:
    """Write ``<id>.json``; a killed run leaves the old record or the new one."""
    provenance.write_json((folder or root() / "_build" / "verdicts") / f"{record.id}.json", asdict(record))


def records(folder: Path | None = None) -> dict[str, Record]:
    """All records of the last runs, by id.

    Raises:
        ValueError: a record is not one that :func:`write` makes.
    """
    found = {}
    for path in sorted((folder or root() / "_build" / "verdicts").glob("*.json")):
        try:
            record = Record.read(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise ValueError(f"record must be one that settle() wrote, got {path.name}: {error}") from error
        found[record.id] = record
    return found


def drift(claims: dict[str, Claim], found: dict[str, Record]) -> list[str]:
    """Where measured verdicts and pinned ones disagree, a sentence each.

    A record counts from the scale on that its claim needs: at ``smoke`` where that is enough, and at ``gpu`` always.
    """
    sentences = []
    for id, record in found.items():
        pinned, needs = (claims[id].pinned, claims[id].needs) if id in claims else (None, "smoke")
        judged = scale.SCALES.index(record.scale) >= scale.SCALES.index(needs)
        if judged and record.verdict != pinned:
            sentences.append(f"{id}: measured {record.verdict!r}, pinned {pinned!r} in book/claims.yml")
    return sentences


def card(claim: Claim, record: Record) -> str:
    """The verdict as HTML: what a page shows where a claim is settled."""
    evidence_ = {group: _listed(group, given) for group, given in record.rows.items()}
    beside = "".join(evidence_.pop(group, "") for group in ("control", "decides_if"))
    asides = {"Repair": record.repair, "Predicted": record.prediction}
    said = "".join(f"<p><b>{name}:</b> {typeset(text)}</p>" for name, text in asides.items() if text)
    decided = {
        "Claim": claim.statement,
        "Criterion": record.criterion,
        "Control": record.no_control and f"none: {record.no_control}",
        "Scale": record.reduced,
        "Undecided": record.undecided,
        "Run": f"{record.scale} scale, seeds {record.seeds}, {record.dtype}, {record.seconds:.1f} s",
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    how = "".join(f"<dt>{name}</dt><dd>{typeset(text)}</dd>" for name, text in decided.items() if text)
    return (
        f'<section class="verdict {record.verdict}" id="{claim.id}" {marks(claim.id, record)} '
        f'aria-label="Verdict on {claim.id}">'
        f"<header>{badge(record.verdict)} <strong>{typeset(claim.title)}</strong> "
        f"<span>{html.escape(claim.locator)}</span></header>"
        f"{said}"
        f'<div class="evidence"><div>{"".join(evidence_.values())}</div><div>{beside}</div></div>'
        f"<details><summary>How it was decided: {claim.id}</summary><dl>{how}</dl></details></section>"
    )


def _listed(group: str, given: Sequence[Row]) -> str:
    """A group of rows as a list with a mark before each."""
    items = "".join(
        f'<li class="{"met" if row.met else "missed"}"><span role="img" aria-label="{"met" if row.met else "missed"}">'
        f"{'✓' if row.met else '✗'}</span> {typeset(row.what)}: "
        f"<b>{typeset(evidence.worded(row.value, row.bound))}</b>, <i>{typeset(evidence.requirement(row))}</i></li>"
        for row in given
    )
    return f"<p>{HEADINGS[group]}</p><ul>{items}</ul>"


def plain(record: Record) -> str:
    """The verdict as text, for whoever reads the notebook without a browser."""
    lines = [f"{record.id}: {record.verdict}"]
    for group, given in record.rows.items():
        lines += [f"  {'✓' if row.met else '✗'} {group}: {evidence.sentence(row)}" for row in given]
    return "\n".join(lines)


def badge(verdict: str | None, marked: str = "") -> str:
    """The verdict as one coloured word; ``marked`` comes from :func:`marks`."""
    word = verdict.replace("_", ", ") if verdict else "not settled yet"
    return f'<span class="badge {verdict or "open"}"{marked and " " + marked}>{word}</span>'


def marks(id: str, record: Record | None) -> str:
    """Attributes of an element that shows a claim's verdict; the builder compares them with the record."""
    verdict, size = (record.verdict, record.scale) if record else ("open", "")
    return f'data-claim="{id}" data-verdict="{verdict}" data-scale="{size}"'


def typeset(text: str) -> str:
    """Escape HTML and mark ``$…$`` for MathJax."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"\$([^$]+)\$", r'<span class="math notranslate nohighlight">\\(\1\\)</span>', escaped)


def _seconds_since_last() -> float:
    global _started
    now = time.perf_counter()
    seconds, _started = now - _started, now
    return round(seconds, 3)


def main() -> int:
    """Compare the records of the last runs with their pins: ``python -m firststep.book.claims``."""
    sentences = drift(ledger(), {id: record for id, record in records().items() if id in ledger()})
    for sentence in sentences:
        print(sentence, file=sys.stderr)
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
