"""Particles that sit in a wrong pose with full confidence are found again by the review, which leaves the right ones alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.geometry import angular_distance_deg, rotation_from_vector
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.star import read_table
from cryopipe.iteration.halves import load_halves
from cryopipe.projection.particle_keys import canonical_order
from cryopipe.refinement import refine_homogeneous as refinement
from tests.simulated_particles import simulate


def test_a_confident_wrong_pose_does_not_outlive_the_review(tmp_path: Path) -> None:
    dataset = simulate(tmp_path / "data", count=80, snr=0.3)
    table = read_table(dataset.particles, "particles")
    order = canonical_order(table.rows)
    halves = load_halves(table.with_rows(table.rows.iloc[order]), threads=1)
    params = RefineHomogeneous(
        symmetry="O", particle_diameter_A=125, initial_lowpass_A=15.0, offset_range_A=9.0, mask_start_resolution_A=12.0
    )
    context = Context("refine_homogeneous", tmp_path, seed=3, threads=1, log=logging.getLogger("test"))
    start = low_pass(dataset.truth, dataset.pixel_size_A, 15.0)
    short = params.model_copy(update={"max_iterations": 3})
    done = refinement.refine(halves, start, short, context, fingerprint="short")
    wrong = slice(0, 6)  # of each half
    turn = rotation_from_vector(np.radians([0.0, 25.0, 12.0]))
    states = []
    for state in done.pair.states:
        poses = state.poses.subset(slice(None))
        poses.rotations[wrong] = turn @ poses.rotations[wrong]
        poses.confidence[:] = 1.0
        states.append(replace(state, poses=poses))
    progress = replace(done, pair=replace(done.pair, states=(states[0], states[1])), settled=True)
    assert refinement.reviews(progress)
    after = refinement.iterate(progress, halves, params, context)
    assert after.reviewed == 4
    assert not refinement.reviews(after)
    for half, state in zip(halves, after.pair.states, strict=True):
        true = dataset.rotations[order][half.rows]
        error = angular_distance_deg(state.poses.rotations, true, symmetry_operators("O"))
        assert error[wrong].max() < 5
        assert error.max() < 5
        # without the review they stay where they are: nothing singles them out
    plain = refinement.iterate(replace(progress, reviewed=3), halves, params, context)
    stuck = angular_distance_deg(
        plain.pair.states[0].poses.rotations[wrong],
        dataset.rotations[order][halves.first.rows][wrong],
        symmetry_operators("O"),
    )
    assert stuck.min() > 5
