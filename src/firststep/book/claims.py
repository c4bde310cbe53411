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
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import yaml
from IPython.display import display

from firststep import checks, scale
from firststep.book import provenance

VERDICTS = {
    "holds": "measured inside the stated assumptions, at the paper's own scale or for a statement without one",
    "holds_reduced": "the same, at a smaller scale than the paper's",
    "corrected": "false or undefined as printed, true after a repair that the page states and tests",
    "refuted": "a counterexample inside the stated assumptions is on the page",
    "inconclusive": "what was run cannot decide it; the page says what would",
}
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

    @property
    def chapter(self) -> str:
        return self.id.split(".")[0]


@dataclass(frozen=True)
class Record:
    """What one run measured about one claim."""

    id: str
    verdict: str
    prediction: str
    measured: str
    criterion: str
    control: str
    repair: str | None
    reduced: str | None
    undecided: str | None
    scale: str
    dtype: str
    seeds: str
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)


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
        good = isinstance(entry, dict) and set(entry) == keys
        checks.require(good, "entry", entry, f"a mapping with the keys {sorted(keys)}")
        claim = Claim(**entry)
        checks.require(claim.id not in claims, "id", claim.id, "unique in the ledger")
        checks.one_of("needs", claim.needs, scale.SCALES)
        if claim.pinned is not None:
            checks.one_of("pinned", claim.pinned, VERDICTS)
        claims[claim.id] = claim
    return claims


def papers() -> dict[str, dict]:
    """What ``book/claims.yml`` says of each paper, by the prefix of its claims."""
    return yaml.safe_load((root() / "book" / "claims.yml").read_text(encoding="utf-8"))["papers"]


def verdict(
    *,
    printed: bool,
    repaired: bool | None = None,
    control_broke: bool | None,
    reduced: str | None = None,
    undecided: str | None = None,
) -> str:
    """The verdict that follows from the evidence; nobody types one.

    Args:
        printed: the statement as printed passed its criterion.
        repaired: the repaired statement passed the same criterion; ``None`` if there is no repair.
        control_broke: with an assumption dropped the same check failed, as it must; ``None`` if no control exists.
        reduced: how the run was smaller than the paper's, or ``None``.
        undecided: why the run cannot decide the claim, or ``None``.

    Returns:
        A key of ``VERDICTS``. A check whose control did not break decides nothing.
    """
    if undecided or (control_broke is not None and not control_broke):  # numpy's False is not ``False``
        return "inconclusive"
    if printed:
        return "holds_reduced" if reduced else "holds"
    return "corrected" if repaired else "refuted"


def settle(
    id: str,
    *,
    prediction: str,
    measured: str,
    printed: bool,
    control: str,
    control_broke: bool | None,
    repair: str | None = None,
    repaired: bool | None = None,
    reduced: str | None = None,
    undecided: str | None = None,
    seeds: str,
    dtype: str,
) -> None:
    """Compute a claim's verdict, show it as a card, and leave a record.

    Args:
        id: as in the ledger, such as ``full_rank.lemma1``.
        prediction: what was predicted before the measurement, with its numbers.
        measured: what was measured, with its numbers.
        printed: as in :func:`verdict`.
        control: which assumption was dropped and what happened, or why no control exists.
        control_broke: as in :func:`verdict`.
        repair: the repaired statement, if there is one.
        repaired: as in :func:`verdict`.
        reduced: as in :func:`verdict`.
        undecided: as in :func:`verdict`; below the scale that the ledger asks for it is filled in.
        seeds: which seeds were run.
        dtype: floating-point type, and tolerance where one matters.

    Raises:
        ValueError: the id is not in the ledger; a repair is judged but not stated; what decides is neither true nor
            false, such as nan; or, where the book is built, the claim was settled before.
    """
    claims = ledger()
    checks.require(isinstance(id, str) and id in claims, "id", id, "an id of book/claims.yml")
    checks.require((repair is None) == (repaired is None), "repair", repair, "given together with repaired")
    checks.require(not (scale.building() and id in _settled), "id", id, "settled once: its page settles it twice")
    claim = claims[id]
    if scale.SCALES.index(scale.name()) < scale.SCALES.index(claim.needs):
        undecided = f"run at {scale.name()} scale, which shows that the page works but settles nothing"
    if scale.rehearsing():
        undecided = "a rehearsal, which shows that the page runs at this size but settles nothing"
    evidence = {
        "printed": _true_or_false("printed", printed),
        "repaired": repaired if repaired is None else _true_or_false("repaired", repaired),
        "control_broke": control_broke if control_broke is None else _true_or_false("control_broke", control_broke),
    }
    record = Record(
        id=id,
        verdict=verdict(**evidence, reduced=reduced, undecided=undecided),
        prediction=prediction,
        measured=measured,
        criterion=claim.criterion,
        control=control,
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
    bundle = {"text/html": card(claim, record), "text/plain": f"{id}: {record.verdict}"}
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
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            checks.one_of("verdict", record.verdict, VERDICTS)
        except (TypeError, ValueError) as error:
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
    rows = {
        "Predicted": record.prediction,
        "Measured": record.measured,
        "Criterion": record.criterion,
        "Control": record.control,
        "Repair": record.repair,
        "Scale": record.reduced,
        "Undecided": record.undecided,
    }
    body = "".join(f"<dt>{name}</dt><dd>{typeset(text)}</dd>" for name, text in rows.items() if text)
    numbers = f"{record.scale} scale · {record.dtype} · seeds {record.seeds} · {record.seconds:.1f} s"
    return (
        f'<section class="verdict {record.verdict}" id="{claim.id}" {marks(claim.id, record)} '
        f'aria-label="Verdict on {claim.id}">'
        f"<header>{badge(record.verdict)} <strong>{typeset(claim.title)}</strong> "
        f"<code>{claim.id}</code> <span>{html.escape(claim.locator)}</span></header>"
        f"<p>{typeset(claim.statement)}</p><dl>{body}</dl><footer>{html.escape(numbers)}</footer></section>"
    )


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


def _true_or_false(name: str, value: object) -> bool:
    """A bool, or what numpy and torch compute instead of one; nan is neither true nor false."""
    kind = getattr(value, "dtype", None)
    single = kind is not None and getattr(value, "ndim", 0) == 0 and str(kind) in ("bool", "torch.bool")
    checks.require(isinstance(value, bool) or single, name, value, "True or False")
    return bool(value)


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
