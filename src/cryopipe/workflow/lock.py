"""Release Snakemake's lock on a run's folder when the process that took it was killed, and only then.

After a SIGKILL or a power cut Snakemake's lock remains, and Snakemake refuses to run until a person unlocks the folder.
Here host, process id and start time of the run's owner are kept beside the lock. A lock is stale if its owner ran on this
host and has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import psutil

from cryopipe.io.atomic import atomic_write


def claim(results: Path) -> bool:
    """Write down this process as the owner of the run in ``results``, unless the owner is alive or on another host.

    Returns
    -------
    bool
        Whether this process is the owner now. If so, a stale lock has been removed. Any other lock is left to Snakemake.
    """
    record = results / ".snakemake" / "cryopipe_owner.json"
    if _alive_or_unknown(record):
        return False
    shutil.rmtree(results / ".snakemake" / "locks", ignore_errors=True)
    atomic_write(record, json.dumps(_identity(os.getpid())))
    return True


def _identity(pid: int) -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": pid, "started": round(psutil.Process(pid).create_time(), 2)}


def _alive_or_unknown(record: Path) -> bool:
    if not record.exists():
        # a lock without our record was taken by another program, so it is left alone
        return any((record.parent / "locks").glob("*"))
    owner = json.loads(record.read_text())
    if owner["host"] != socket.gethostname():
        return True
    if owner["pid"] == os.getpid():
        return False
    try:
        return _identity(int(owner["pid"])) == owner
    except psutil.NoSuchProcess:
        return False
