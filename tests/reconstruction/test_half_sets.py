from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopipe.errors import InputError
from cryopipe.io.star import StarTable
from cryopipe.reconstruction.half_sets import half_sets, half_sets_of


def table(n: int = 200, micrographs: int = 7) -> StarTable:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "crpItem": [f"mic{i % micrographs}" for i in range(n)],
            "rlnCoordinateX": rng.uniform(0, 4000, n),
            "rlnCoordinateY": rng.uniform(0, 4000, n),
            "rlnImageName": [f"{i + 1:06d}@a.mrcs" for i in range(n)],
        }
    )
    return StarTable("particles", pd.DataFrame(), rows)


def test_halves_are_balanced_in_every_micrograph() -> None:
    particles = table()
    half = half_sets_of(particles)
    assert set(half) == {1, 2}
    counts = pd.crosstab(particles.rows["crpItem"], half)
    assert (counts[1] - counts[2]).abs().max() <= 1
    assert abs(int((half == 1).sum()) - 100) <= 7


def test_a_particle_keeps_its_half_whatever_the_order_and_the_other_micrographs() -> None:
    particles = table()
    half = half_sets_of(particles)
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(half_sets_of(particles.with_rows(particles.rows.iloc[order])), half[order])
    some = np.flatnonzero(particles.rows["crpItem"] != "mic3")
    np.testing.assert_array_equal(half_sets_of(particles.with_rows(particles.rows.iloc[some])), half[some])


def test_names_alone_are_split_and_no_names_are_refused() -> None:
    particles = table()
    names_only = particles.with_rows(particles.rows[["rlnImageName"]])
    assert abs(int((half_sets_of(names_only) == 1).sum()) - 100) == 0
    with pytest.raises(InputError, match="rlnImageName"):
        half_sets_of(particles.with_rows(particles.rows[["rlnCoordinateX"]]))


def test_a_particle_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="b is in the table twice"):
        half_sets(["a", "b", "c", "b"])


def test_no_particles_have_no_halves() -> None:
    assert half_sets([]).shape == (0,)


def test_one_particle_makes_no_two_halves() -> None:
    with pytest.raises(InputError, match=r"with 1 particles half set [12] is empty"):
        half_sets_of(table(1))


def test_half_sets_that_a_table_states_are_kept_and_others_than_1_and_2_are_refused() -> None:
    particles = table()
    stated = np.where(np.arange(200) < 50, 1, 2)
    given = particles.with_rows(particles.rows.assign(rlnRandomSubset=stated))
    np.testing.assert_array_equal(half_sets_of(given), stated)
    stated[7] = 0
    with pytest.raises(InputError, match=r"rlnRandomSubset is 0 for particle 8.*remove it"):
        half_sets_of(particles.with_rows(particles.rows.assign(rlnRandomSubset=stated)))
    with pytest.raises(InputError, match="half set 2 is empty"):
        half_sets_of(particles.with_rows(particles.rows.assign(rlnRandomSubset=1)))
