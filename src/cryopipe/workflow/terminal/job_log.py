"""The log file of a job, read while it grows: how far the job is, its warnings, what came out, why it failed.

The file is all that a job says, on this machine or on another node, so the terminal shows the same for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

#: Set where the terminal reads the logs of the jobs: they then write nothing else.
TERMINAL_VARIABLE = "CRYOPIPE_TERMINAL"
#: How an entry starts in the file.
FORMAT = "%(asctime)s %(levelname)s %(message)s"
_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ", re.MULTILINE)
#: What `cryopipe.context.Context.progress` and the end of a step write.
PROGRESS = re.compile(r"^\S+: (\d+ of \d+ .+)$")
_DONE = re.compile(r"^\S+: done in ([\d.]+) s on the \w+(?:: (.*))?$", re.DOTALL)
#: Clocks of file servers differ from ours by less, s.
_CLOCKS = 5.0
#: Lines of a log that are shown where it does not say why its job ended.
_LAST_LINES = 10


@dataclass
class JobLog:
    """What the log of a job has said so far.

    Attributes
    ----------
    path : Path
        The file; it may not be there yet.
    started : float
        When the job was started, s since 1970. An older file is that of another try.
    progress, outcome : str
        How far the job is; what it made.
    seconds : float, optional
        What the finished job took.
    error : str
        Why it failed.
    """

    path: Path
    started: float = 0.0
    progress: str = ""
    outcome: str = ""
    seconds: float | None = None
    error: str = ""
    _read: int = 0
    _before: str = field(default="", repr=False)

    def news(self, *, ended: bool = False) -> list[str]:
        """Read on and return the warnings that are new; ``ended`` says that the job writes no more."""
        try:
            state = self.path.stat()
            if not ended and state.st_mtime < self.started - _CLOCKS:
                return []
            if state.st_size < self._read:
                self._read = 0
            with self.path.open("rb") as stream:
                stream.seek(self._read)
                text = stream.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        parts = _ENTRY.split(whole.decode("utf-8", errors="replace"))
        found = [self._take(level, said.rstrip("\n")) for level, said in zip(parts[1::2], parts[2::2], strict=True)]
        return [warning for warning in found if warning]

    def _take(self, level: str, said: str) -> str | None:
        before, self._before = self._before, said
        if level == "WARNING":
            return said
        if level in ("ERROR", "CRITICAL"):
            # the traceback of a defect is part of what is known of it
            self.error = f"{before}\n{said}" if said.startswith("unexpected ") else said
        elif found := PROGRESS.match(said):
            self.progress = found[1]
        elif found := _DONE.match(said):
            self.seconds, self.outcome = float(found[1]), found[2] or ""
        return None

    def last_lines(self) -> str:
        """Return the end of the file."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LAST_LINES:])
