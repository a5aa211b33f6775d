"""Work through the items of a batch one by one: resume after a kill, quarantine what fails, stop when too much fails."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from cryopipe.context import Context
from cryopipe.errors import CryopipeError, InputError
from cryopipe.fingerprint import fingerprint
from cryopipe.io.atomic import atomic_write

Row = dict[str, Any]
T = TypeVar("T")
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
    items: Mapping[str, T],
    work: Callable[[str, T], Row],
    context: Context,
    *,
    params: BaseModel,
    reads: Callable[[str, T], Iterable[Path]],
    makes: Callable[[str, Row], Iterable[Path]] = lambda name, row: (),
    ignore: Iterable[str] = (),
    threads: int = 1,
) -> ItemResults:
    """Run ``work(name, item)`` for every item, keeping each result on disk so that a killed job continues where it was.

    A kept row is used again where its fingerprint (`cryopipe.fingerprint`) is the same: ``params``, the item itself, the
    content of the files that ``reads`` names, the code, and the seed where random numbers were drawn. Hence ``work`` may
    use these and nothing else: what belongs to an item, such as the optics of its row, is part of the item.

    Parameters
    ----------
    items : mapping
        Name (unique, file-name safe) to all facts that ``work`` needs: a row joined with its optics, or a dataclass or
        tuple that holds it. The name is the key of seeds, files and quarantine.
    work : callable
        Returns a JSON-serialisable row. Raising an `InputError`, `OSError` or `ValueError` puts the item into quarantine;
        any other exception is a defect of the program and stops the run.
    context : Context
        Its ``work_dir`` keeps ``<item>.json``; its log gets progress and the traceback of each quarantined item. As soon as
        more than its ``max_failed_fraction`` of the items are quarantined the run stops: a batch that is the whole run by any
        number (but never by a single item), one of several by `FEWEST_FAILURES`.
    params : BaseModel
        The step's parameters.
    reads : callable
        All files that ``work`` reads for an item, those that serve every item included.
    makes : callable
        The files that ``work`` writes for an item; a kept row is used again only if all of them exist in the size that
        they had.
    ignore : iterable of str
        Names of parameters that change no result.
    threads : int
        Threads over items. Rows come back in input order whatever the number.

    Raises
    ------
    CryopipeError
        Too many items failed; the message lists the first reasons.
    """
    state = context.work_dir / "items"
    state.mkdir(parents=True, exist_ok=True)
    ignored = tuple(ignore)
    done = again = 0
    failed: list[Rejection] = []

    def one(entry: tuple[str, T]) -> Row | Rejection:
        nonlocal done, again
        name, item = entry
        kept = state / f"{name}.json"
        stamp = fingerprint(context, params, item, files=reads(name, item), ignore=ignored, seeded=False)
        result: Row | Rejection | None = _kept_row(kept, name, stamp, context.seed, makes)
        if result is None:
            # before the files that the old row refers to are written over: a row and its files are of one making
            kept.unlink(missing_ok=True)
            result = _attempt(name, item, work, context)
            if isinstance(result, Rejection):
                failed.append(result)
                _refuse_failures(failed, len(items), context)
            else:
                seed = context.seed if context.has_drawn else None
                sizes = _sizes(makes(name, result))
                record = {"fingerprint": stamp, "seed": seed, "makes": sizes, "row": result}
                atomic_write(kept, json.dumps(record).encode())
        else:
            again += 1
        done += 1
        context.progress(done, len(items), "items")
        return result

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(one, items.items()))
    else:
        results = [one(entry) for entry in items.items()]
    if again:
        context.log.info("%s: %d of %d items are kept from before", context.step, again, len(items))
    rows = [r for r in results if not isinstance(r, Rejection)]
    return ItemResults(rows, [r for r in results if isinstance(r, Rejection)])


def _attempt(name: str, item: T, work: Callable[[str, T], Row], context: Context) -> Row | Rejection:
    """Return the item's row, or its quarantine with the reason, which the log gets as well."""
    try:
        return work(name, item)
    except (InputError, OSError, ValueError) as error:
        context.log.warning("%s: %s is quarantined: %s", context.step, name, error)
        context.log.info("%s", traceback.format_exc())
        return Rejection(name, "quarantined", " ".join(str(error).split()) or type(error).__name__)


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


def _kept_row(kept: Path, name: str, stamp: str, seed: int, makes: Callable[[str, Row], Iterable[Path]]) -> Row | None:
    try:
        record = json.loads(kept.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if record.get("fingerprint") != stamp or record.get("seed") not in (None, seed):
        return None
    row: Row = record["row"]
    sizes = _sizes(makes(name, row))
    return row if record.get("makes") == sizes and -1 not in sizes.values() else None


def _sizes(files: Iterable[Path]) -> dict[str, int]:
    """Return the sizes in bytes of files, -1 of one that is missing."""
    return {str(path): Path(path).stat().st_size if Path(path).exists() else -1 for path in files}
