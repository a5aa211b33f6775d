"""The log file of a job, read while it grows: progress, warnings, the outcome, or the reason of a failure.

All messages of a job are in this file, on this machine or on another node. So the terminal shows the same for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

#: Is set if the terminal reads the logs of the jobs. Then jobs write only their logs.
TERMINAL_VARIABLE = "CRYOPIPE_TERMINAL"
#: Format of an entry in the file.
FORMAT = "%(asctime)s %(levelname)s %(message)s"
_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) ", re.MULTILINE)
#: Messages of `cryopipe.context.Context.progress` and of the end of a step.
PROGRESS = re.compile(r"^\S+: (\d+ of \d+ .+)$")
_DONE = re.compile(r"^\S+: done in ([\d.]+) s on the \w+(?:: (.*))?$", re.DOTALL)
#: The clocks of file servers and of this machine differ by less than this, s.
_CLOCKS = 5.0
#: Number of lines of a log that are shown if it has no reason why its job ended.
_LAST_LINES = 10


@dataclass
class JobLog:
    """Content of the log of a job so far.

    Attributes
    ----------
    path : Path
        The file. It may not exist yet.
    started : float
        Time when the job was started, s since 1970. An older file is from an earlier attempt.
    progress, outcome : str
        Progress of the job, and its result.
    seconds : float, optional
        Duration of the finished job.
    error : str
        Reason why it failed.
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
        """Read the new lines and return their warnings. ``ended`` means that the job writes no more."""
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
            # after an unexpected error the traceback is shown, too
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
