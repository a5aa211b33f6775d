"""What a job made, in a few words."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from cryopipe.io.star import write_blocks, write_rejections
from cryopipe.items import Rejection
from cryopipe.workflow.terminal.outcome import LastWord, outcome


@pytest.fixture
def log() -> logging.Logger:
    log = logging.Logger("job", logging.DEBUG)
    log.addHandler(LastWord())
    return log


def test_a_step_that_counts_items_says_how_many_it_passes_on_whatever_its_table_is_called(
    tmp_path: Path, log: logging.Logger
) -> None:
    table, lost = tmp_path / "batch_0001_fetched.star", tmp_path / "rejected.tsv"
    write_blocks(table, {"fetched": pd.DataFrame({"crpItem": ["m0", "m2"]})})
    write_rejections(lost, [Rejection("m1", "quarantined", "lost")])
    assert outcome("fetch_movies", {"fetched": table, "rejected": lost}, log) == "2 of 3 movies"
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2, 3]})
    write_blocks(table, {"optics": optics, "micrographs": pd.DataFrame({"crpItem": ["m0"]})})
    assert outcome("consensus_ctf/defocus", {"micrographs": table, "rejected": lost}, log) == "1 of 2 micrographs"


def test_a_step_that_counts_nothing_says_the_last_thing_that_was_no_progress(
    tmp_path: Path, log: logging.Logger
) -> None:
    log.info("classify_2d: 372 particles in 9 classes")
    log.info("classify_2d: 25 of 25 iterations")
    log.warning("few particles")
    assert outcome("classify_2d", {}, log) == "372 particles in 9 classes"
