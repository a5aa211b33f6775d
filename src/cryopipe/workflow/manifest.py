"""The append-only list of input files. The place of a file, and so its batch, does not change when others are added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryopipe.errors import ConfigError
from cryopipe.io.atomic import atomic_write

#: The manifest's name in the folder of a run.
MANIFEST = "manifest.txt"


def extended(known: list[str], files: Iterable[str]) -> list[str]:
    """Return the manifest ``known`` with the files that it does not list yet at its end, in sorted order.

    Files that are gone stay listed. The import step quarantines them with this reason, so that no file vanishes silently.

    Raises
    ------
    ConfigError
        Two files have the same stem.
    """
    new = sorted(set(files) - set(known))
    names = Counter(Path(f).stem for f in (*known, *new))
    twice = sorted(name for name, count in names.items() if count > 1)
    if new and twice:
        raise ConfigError(
            f"two input files have the same name {twice[0]!r} (in all {len(twice)} such names). An item has the name of its "
            "file without the extension, so rename one of the files or narrow the glob."
        )
    return [*known, *new]


def write_manifest(path: Path, files: Sequence[str]) -> None:
    """Write the manifest, unless its content is the same already."""
    if files and list(files) != read_manifest(path):
        atomic_write(path, "".join(f"{line}\n" for line in files))


def read_manifest(path: Path) -> list[str]:
    """Return the files listed in ``path``. A missing manifest counts as an empty one."""
    return path.read_text().splitlines() if path.exists() else []


def batches(files: list[str], size: int) -> dict[str, list[str]]:
    """Cut the manifest into ``{"batch_0001": [files], ...}`` of ``size`` files."""
    return {f"batch_{i // size + 1:04d}": files[i : i + size] for i in range(0, len(files), size)}
