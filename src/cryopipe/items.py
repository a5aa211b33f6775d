"""Work through the items of a batch one by one: resume after a kill, quarantine what fails, stop when too much fails."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.atomic import atomic_write

Row = dict[str, Any]
#: Failures in one batch of several below which it does not stop the run by itself: few say nothing about the share in all
#: batches, which is looked at when the batch is done.
FEWEST_FAILURES = 5


@dataclass(frozen=True)
class Rejection:
    """One item that does not go on: ``kind`` is "quarantined" (could not be processed) or "rejected" (judged unfit)."""

    item: str
    kind: str
    reason: str


class FailureLike(Protocol):
    """What a message needs of a rejection, fresh or read from a table."""

    @property
    def item(self) -> str:
        """Its name."""

    @property
    def reason(self) -> str:
        """Why it failed."""


@dataclass(frozen=True)
class ItemResults:
    """Rows of the items that went through (in input order) and the rejections; together they count up to the input."""

    rows: list[Row]
    rejections: list[Rejection]


def process_items(
    items: Mapping[str, Any],
    work: Callable[[str, Any], Row],
    context: Context,
    *,
    fingerprint: str,
    files: Callable[[str, Row], Iterable[Path]] = lambda item, row: (),
    workers: int = 1,
) -> ItemResults:
    """Run ``work(name, item)`` for every item, keeping each result on disk so that a killed job continues where it was.

    Parameters
    ----------
    items : mapping
        Name (unique, file-name safe) to whatever ``work`` needs. The name is the key of seeds, files and quarantine.
    work : callable
        Returns a JSON-serialisable row. Raising an `InputError`, `OSError` or `ValueError` puts the item into quarantine;
        any other exception is a defect of the program and stops the run.
    context : Context
        Its ``work_dir`` keeps ``<item>.json``; its log gets progress and the traceback of each quarantined item. As soon as
        more than its ``max_failed_fraction`` of the items are quarantined the run stops: a batch that is the whole run by any
        number (but never by a single item), one of several by `FEWEST_FAILURES`.
    fingerprint : str
        Digest of everything but the item that determines the result (parameters, other inputs); a kept row with another
        one is ignored.
    files : callable
        The files the item's row refers to; a kept row is reused only if all of them exist (files are renamed into place,
        so one that exists is complete).
    workers : int
        Threads over items. Rows come back in input order whatever the number.

    Raises
    ------
    CryopipeError
        Too many items failed; the message lists the first reasons.
    """
    state = context.work_dir / "items"
    state.mkdir(parents=True, exist_ok=True)
    done = 0
    failed: list[Rejection] = []

    def one(entry: tuple[str, Any]) -> Row | Rejection:
        nonlocal done
        name, item = entry
        kept = state / f"{name}.json"
        result: Row | Rejection | None = _kept_row(kept, name, fingerprint, files)
        if result is None:
            try:
                row = work(name, item)
            except (InputError, OSError, ValueError) as error:
                context.log.warning("%s: %s is quarantined: %s", context.step, name, error)
                context.log.info("%s", traceback.format_exc())
                result = Rejection(name, "quarantined", " ".join(str(error).split()) or type(error).__name__)
                failed.append(result)
                _refuse_failures(failed, len(items), context)
            else:
                atomic_write(kept, json.dumps({"fingerprint": fingerprint, "row": row}).encode())
                result = row
        done += 1
        context.progress(done, len(items), "items")
        return result

    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(one, items.items()))
    else:
        results = [one(entry) for entry in items.items()]
    rows = [r for r in results if not isinstance(r, Rejection)]
    return ItemResults(rows, [r for r in results if isinstance(r, Rejection)])


def _refuse_failures(failed: list[Rejection], total: int, context: Context) -> None:
    """Stop the run when a batch of ``total`` items has more failures than may be."""
    fewest = FEWEST_FAILURES if context.items_in_run > total else 1
    if total > 1 and len(failed) >= fewest and len(failed) > context.max_failed_fraction * total:
        raise CryopipeError(failure_message(context, failed, f"{total} items"))


def failure_message(context: Context, failed: Sequence[FailureLike], whole: str) -> str:
    """Return what to tell a person when too many items failed, with the first reasons."""
    reasons = "; ".join(f"{r.item}: {r.reason}" for r in failed[:5])
    return (
        f"{context.step}: {len(failed)} of {whole} failed, more than the allowed share of {context.max_failed_fraction:.0%}. "
        f"First reasons: {reasons}. Mend or remove these inputs, or raise run.max_failed_fraction."
    )


def digest(*parts: object) -> str:
    """Return a short SHA-256 over the JSON of ``parts``: the ``fingerprint`` of :func:`process_items`."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _kept_row(kept: Path, name: str, fingerprint: str, files: Callable[[str, Row], Iterable[Path]]) -> Row | None:
    try:
        record = json.loads(kept.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if record.get("fingerprint") != fingerprint:
        return None
    row: Row = record["row"]
    return row if all(Path(f).exists() for f in files(name, row)) else None
