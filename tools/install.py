"""Make the virtual environment of the project and say on one line a stage what is done, and how long it took.

    python3 tools/install.py .venv

Only Python's own library is used: nothing is installed yet. The lock file pins every version; the project itself is
installed in place, without looking for anything more.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
#: The oldest Python that the project runs on.
OLDEST = (3, 11)
PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
_TERMINAL = sys.stdout.isatty()


def say(text: str, *, for_good: bool = True) -> None:
    """Write a line; on a terminal one that is not for good is written over by the next, elsewhere it is left out."""
    if for_good or _TERMINAL:
        print(f"\r\x1b[K{text}" if _TERMINAL else text, end="\n" if for_good else "", flush=True)


@contextmanager
def stage(number: int, what: str) -> Iterator[None]:
    """Say what is done in the block and, when it is over, how long it took."""
    start = time.monotonic()
    say(f"[{number}/3] {what} ...")
    yield
    say(f"[{number}/3] done in {max(1, round(time.monotonic() - start))} s")


def install(python: Path, *what: str) -> None:
    """Let pip install ``what``; show which package it is at, and all that it said if it fails."""
    said: list[str] = []
    packages = 0
    command = [str(python), *PIP, *what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            if found := re.match(r"Collecting (\S+?)==", line):
                packages += 1
                say(f"      {packages}: {found[1]}", for_good=False)
            elif line.startswith("Installing collected packages"):
                say("      all are here; unpacking them", for_good=packages > 0)
    if pip.returncode:
        say("".join(said))
        sys.exit(f"pip could not install {' '.join(what)}; what it said is above. The same command tries again.")


def main(folder: Path) -> None:
    """Make or complete the environment in ``folder``."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"cryopipe needs Python >= {'.'.join(map(str, OLDEST))}, this is {sys.version}. Try make PYTHON=python3.12"
        )
    python = folder / "bin" / "python"
    count = sum(1 for line in LOCK.read_text().splitlines() if "==" in line)
    with stage(1, f"virtual environment {folder}"):
        if not python.exists():
            venv.create(folder, with_pip=True)
    with stage(2, f"{count} packages of {LOCK.name}: about 310 MB to download, 1.2 GB on the disk, some minutes"):
        install(python, "--requirement", str(LOCK))
    with stage(3, "cryopipe itself, in place"):
        install(python, "--no-deps", "--editable", str(ROOT))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
