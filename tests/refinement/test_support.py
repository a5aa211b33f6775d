"""A refinement of nothing but noise has to say so: its halves agree as far as their common start made them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.io.mrc import write_volume
from cryopipe.refinement import refine_homogeneous
from cryopipe.refinement.support import unsupported
from cryopipe.report.sections.refinement import warning
from tests.refinement.step import outputs_in
from tests.simulated_particles import simulate


@pytest.mark.parametrize(("snr", "says"), [(1e-7, True), (0.5, False)])
def test_the_log_and_the_report_warn_of_a_map_of_noise_and_of_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, snr: float, says: bool
) -> None:
    dataset = simulate(tmp_path / "data", count=80, snr=snr, symmetry="C1", box=48, pixel_size_A=4.0, seed=1)
    write_volume(tmp_path / "start.mrc", low_pass(dataset.truth, 4.0, 26.0), 4.0)
    outputs = outputs_in(tmp_path)
    params = RefineHomogeneous(
        symmetry="C1",
        particle_diameter_A=125,
        initial_lowpass_A=26.0,
        offset_range_A=8.0,
        healpix_order=2,
        mask_start_resolution_A=12.0,
    )
    context = Context("refine_homogeneous", tmp_path, seed=3, threads=1, log=logging.getLogger("test"))
    with caplog.at_level(logging.WARNING):
        refine_homogeneous.main(
            {"particles": dataset.particles, "map": tmp_path / "start.mrc"}, outputs, params, context
        )
    found = warning(outputs["history"])
    assert (found is not None) == says
    assert any("nothing shows that the refined map is right" in message for message in caplog.messages) == says


def test_a_resolution_just_beyond_the_start_supports_nothing() -> None:
    # a D2 particle that correlated with nothing was stated at 27.1 Å
    reason = unsupported(27.1, 30.0)
    assert reason is not None
    assert "27.1 Å" in reason
    assert unsupported(7.7, 25.0) is None
