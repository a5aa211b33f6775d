"""Which files of a public archive a run uses: listed once, before any job, and kept in the run's folder."""

from __future__ import annotations

from pathlib import Path

from cryopipe.errors import ConfigError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.public_archive.archive import (
    ArchiveFile,
    ArchivePattern,
    list_archive,
    matches,
    parse_list,
    parse_pattern,
)
from cryopipe.io.public_archive.request import fetch_page

#: File that keeps the listing. Without it the archive is asked again, and new files go to the end of the manifest.
KEPT = "archive.txt"


def archived_files(
    name: str, *, base_url: str, listing: Path | None, results: Path, keep: bool
) -> dict[str, ArchiveFile]:
    """Return ``{name in the manifest: file}`` of the archived files that match ``name`` (``empiar:<number>/<pattern>``).

    Parameters
    ----------
    name : str
        ``dataset.movies``.
    base_url : str
        Folder of all entries of the archive.
    listing : Path, optional
        A user's list of the entry's files. Without one the archive's HTML indices are read.
    results : Path
        Folder of the run. What the indices list is kept in its file `KEPT`.
    keep : bool
        True in the process that builds the DAG. No other process writes there.

    Raises
    ------
    ConfigError
        No file matches, or the list cannot be read.
    InputError
        The name or the list is wrong, or the archive does not answer.
    """
    pattern = parse_pattern(name)
    if listing is not None:
        try:
            known = parse_list(listing.read_text(), str(listing))
        except OSError as error:
            raise ConfigError(
                f"movies.fetch_movies.listing: {listing} cannot be read ({error.strerror}). "
                "Paths are relative to the folder of the Snakefile."
            ) from error
        files = [file for file in known if matches(file.path, pattern.parts)]
    else:
        files = _listed(name, pattern, base_url, results / KEPT, keep)
    if not files:
        where = listing or f"{base_url.rstrip('/')}/{pattern.entry}/"
        raise ConfigError(f"dataset.movies: no file of {where} matches {pattern.pattern}. Correct the pattern.")
    return {pattern.name(file.path): file for file in files}


def _listed(name: str, pattern: ArchivePattern, base_url: str, kept: Path, keep: bool) -> list[ArchiveFile]:
    text = kept.read_text() if kept.exists() else ""
    if text.startswith(f"# {name}\n"):
        return parse_list(text, str(kept))
    files = list_archive(pattern, base_url, fetch_page)
    if keep and files:
        atomic_write(kept, "".join([f"# {name}\n", *(f"{file.line()}\n" for file in files)]))
    return files
