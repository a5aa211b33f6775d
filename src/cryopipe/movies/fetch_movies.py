"""Download the movies of a batch from a public archive (EMPIAR, Iudin et al. 2023, doi:10.1093/nar/gkac1062).

Each file is received into a ``.part`` file beside its place. If the transfer or the job breaks off, it is resumed there. The
size is compared with that of the server or the list, and the checksum with that of the list if there is one. Then the file is
renamed. A file that cannot be received is quarantined with the last reason, and the others go on. Downloading is a step of its
own because it needs the network but no processor: on a cluster it runs where the workflow was started, since compute nodes
often have no network.

Limits: without a list of checksums, a file that was damaged at the archive is not noticed here. ``import_movies`` finds files
that cannot be decoded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from cryopipe.config.movies import FetchMovies
from cryopipe.context import Context
from cryopipe.io.public_archive.archive import address, parse_pattern
from cryopipe.io.public_archive.download import download
from cryopipe.io.star import write_blocks, write_rejections
from cryopipe.items import Row, process_items
from cryopipe.movies.registration import typed_rows, unique_items

COLUMNS = {
    "crpItem": "str",
    "rlnMicrographMovieName": "str",
    "crpSource": "str",
    "crpBytes": "int64",
    "crpChecksum": "str",
}
#: Seconds between two progress lines about one file.
_EVERY_S = 15.0
#: Parameters that do not change a movie: how a file is requested, and the list of the batch (an item has its own facts).
_HOW = ("paths", "sizes", "checksums", "base_url", "listing", "connections", "attempts", "wait_s", "timeout_s")
#: Folder of the movies inside the run's folder, if the configuration does not name one.
FOLDER = "movies/fetch_movies/movies"


class _Said:
    """Logs how far each file is, not more often than a person reads."""

    def __init__(self, item: str, context: Context) -> None:
        self._item = item
        self._log = context.log
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, have: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = have
        if now - self._last < _EVERY_S:
            return
        self._last = now
        rate = (have - self._first) / 1e6 / (now - self._start)
        whole = f" of {total / 1e6:.0f}" if total else ""
        self._log.info("%s: %.0f%s MB, %.1f MB/s", self._item, have / 1e6, whole, rate)


def fetch_movie(item: str, name: str, params: FetchMovies, context: Context) -> Row:
    """Download one movie.

    Parameters
    ----------
    item : str
        Name of the movie in all tables.
    name : str
        ``empiar:<number>/<path>``.
    params : FetchMovies
        Archive, folder, and the expected size and checksum.
    context : Context
        Progress is written to its log.

    Returns
    -------
    dict
        Values of `COLUMNS`. ``crpChecksum`` is "none" if the list has no checksum.

    Raises
    ------
    InputError
        The archive does not deliver the whole file.
    CryopipeError
        The file cannot be written here.
    """
    file = parse_pattern(name)
    # keep the folders of the archive, since files of different entries or folders often have the same name
    path = Path(params.folder or FOLDER, file.entry, file.pattern)
    checksum = params.checksums.get(name)
    size = download(
        address(params.base_url, name),
        path,
        size=params.sizes.get(name),
        checksum=checksum,
        attempts=params.attempts,
        wait_s=params.wait_s,
        timeout_s=params.timeout_s,
        progress=_Said(item, context),
    )
    return {
        "crpItem": item,
        "rlnMicrographMovieName": str(path),
        "crpSource": name,
        "crpBytes": size,
        "crpChecksum": checksum or "none",
    }


def main(
    inputs: Mapping[str, Path | list[Path]], outputs: Mapping[str, Path], params: FetchMovies, context: Context
) -> None:
    """Download ``params.paths``; write outputs ``fetched`` (STAR: the file of each movie) and ``rejected`` (TSV)."""
    names = dict(zip(unique_items(params.paths), params.paths, strict=True))
    items = {item: (name, params.sizes.get(name), params.checksums.get(name)) for item, name in names.items()}
    start = time.monotonic()
    # an item has the same name when the entry is changed, so the name in the archive must be one of its facts
    results = process_items(
        items,
        lambda item, facts: fetch_movie(item, facts[0], params, context),
        context,
        params=params,
        reads=lambda item, facts: [],
        ignore=_HOW,
        makes=lambda item, row: [Path(row["rlnMicrographMovieName"])],
        threads=params.connections,
    )
    there = sum(row["crpBytes"] for row in results.rows)
    context.log.info(
        "%d of %d movies are there, %.2f GB, after %.0f s",
        len(results.rows),
        len(items),
        there / 1e9,
        time.monotonic() - start,
    )
    write_blocks(outputs["fetched"], {"fetched": typed_rows(results.rows, COLUMNS)})
    write_rejections(outputs["rejected"], results.rejections)
