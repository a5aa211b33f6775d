"""The append-only list of input files: a file's place, hence its batch, never changes when others come later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryopipe.errors import ConfigError
from cryopipe.io.atomic import atomic_write

#: The manifest's name in the folder of a run.
MANIFEST = "manifest.txt"


def update_manifest(path: Path, files: Iterable[str], *, write: bool = True) -> list[str]:
    """Append the files that ``path`` does not list yet, in sorted order, and return the whole list.

    With ``write=False`` the list is returned as it would be, and the file stays as it is.

    Files that are gone stay listed: the import step quarantines them with that reason, so that nothing vanishes silently.
    """
    known = read_manifest(path)
    new = sorted(set(files) - set(known))
    if new:
        names = [Path(f).stem for f in (*known, *new)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two input files share the name {twice[0]!r} (in all {len(twice)} such names); items are named by their file's "
                "stem, so rename one of them or narrow the glob."
            )
        if write:
            atomic_write(path, "".join(f"{line}\n" for line in (*known, *new)))
    return [*known, *new]


def read_manifest(path: Path) -> list[str]:
    """Return the files listed in ``path``; an absent manifest is an empty one."""
    return path.read_text().splitlines() if path.exists() else []


def batches(files: list[str], size: int) -> dict[str, list[str]]:
    """Cut the manifest into ``{"batch_0001": [files], ...}`` of ``size`` files."""
    return {f"batch_{i // size + 1:04d}": files[i : i + size] for i in range(0, len(files), size)}
