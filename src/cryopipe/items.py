"""Process the items of a batch one by one: resume after a kill, quarantine items that fail, stop if too many fail."""

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
#: If there are several batches, fewer failures than this in one batch do not stop the run at once: they tell little about
#: the share in all batches, which is checked when the batch is done.
FEWEST_FAILURES = 5


@dataclass(frozen=True)
class Rejection:
    """One item that does not go on. ``kind`` is "quarantined" (could not be processed) or "rejected" (judged unfit)."""

    item: str
    kind: str
    reason: str


class FailureLike(Protocol):
    """What a message needs to know about a rejection, new or read from a table."""

    @property
    def item(self) -> str:
        """Name of the item."""

    @property
    def reason(self) -> str:
        """Why the item failed."""


@dataclass(frozen=True)
class ItemResults:
    """Rows of the items that succeeded (in input order) and the rejections. Together they are all items of the input."""

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
    """Run ``work(name, item)`` for every item. Each result is kept on disk, so that a killed job goes on where it was.

    A kept row is used again if its fingerprint (`cryopipe.fingerprint`) is the same: ``params``, the item itself, the
    content of the files that ``reads`` names, the code, and the seed if random numbers were drawn. So ``work`` must use
    nothing else: everything that belongs to an item, such as the optics of its row, must be part of the item.

    Parameters
    ----------
    items : mapping
        For each name all facts that ``work`` needs: a row joined with its optics, or a dataclass or tuple that contains it.
        The name must be unique and fit for a file name. Seeds, files and quarantine use it.
    work : callable
        Returns a row that JSON can write. If it raises an `InputError`, `OSError` or `ValueError`, the item is quarantined.
        Any other exception is a defect of the program and stops the run.
    context : Context
        Its ``work_dir`` keeps ``<item>.json``. Its log gets progress and the traceback of each quarantined item. The run
        stops as soon as more than ``max_failed_fraction`` of the items are quarantined. If the batch is the whole run, one
        failure may suffice, unless it is the only item. If there are several batches, at least `FEWEST_FAILURES` are needed.
    params : BaseModel
        Parameters of the step.
    reads : callable
        Returns all files that ``work`` reads for an item, also those that are read for every item.
    makes : callable
        Returns the files that ``work`` writes for an item. A kept row is used again only if all of them exist with the
        size that they had.
    ignore : iterable of str
        Names of parameters that do not change the result.
    threads : int
        Items that are processed at the same time. The order of the rows is that of the input in any case.

    Raises
    ------
    CryopipeError
        Too many items failed. The message lists the first reasons.
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
            # forget the old row before its files are overwritten, so that a row always belongs to its files
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
        context.log.info("%s: %d of %d items are kept from an earlier run", context.step, again, len(items))
    rows = [r for r in results if not isinstance(r, Rejection)]
    return ItemResults(rows, [r for r in results if isinstance(r, Rejection)])


def _attempt(name: str, item: T, work: Callable[[str, T], Row], context: Context) -> Row | Rejection:
    """Return the row of the item, or its quarantine with the reason, which is also logged."""
    try:
        return work(name, item)
    except (InputError, OSError, ValueError) as error:
        context.log.warning("%s: %s is quarantined: %s", context.step, name, error)
        context.log.info("%s", traceback.format_exc())
        return Rejection(name, "quarantined", " ".join(str(error).split()) or type(error).__name__)
    except Exception as error:
        error.add_note(f"at {name}")
        raise


def _refuse_failures(failed: list[Rejection], total: int, context: Context) -> None:
    """Stop the run if a batch of ``total`` items has more failures than allowed."""
    fewest = FEWEST_FAILURES if context.items_in_run > total else 1
    if total > 1 and len(failed) >= fewest and len(failed) > context.max_failed_fraction * total:
        raise CryopipeError(failure_message(context, failed, f"{total} items"))


def failure_message(context: Context, failed: Sequence[FailureLike], whole: str) -> str:
    """Return the message for too many failed items, with the first reasons."""
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
    """Return the sizes of files in bytes, -1 for a missing file."""
    return {str(path): Path(path).stat().st_size if Path(path).exists() else -1 for path in files}
