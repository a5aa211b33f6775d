"""Blocks of a particle store have the same borders and bits whatever memory it may take."""

from __future__ import annotations

import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.io.mrc import format_image_name, write_stack
from cryopipe.io.star import StarTable
from cryopipe.iteration import particle_store
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.projection.particle_spectra import load_particle_spectra
from tests.simulated_particles import Dataset, simulate

# not a multiple of the transforms' vector length, so that a spectrum that depended on its neighbours would show
BOX, COUNT = 50, 200
LARGEST = BOX // 2 - 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simulate(tmp_path_factory.mktemp("store"), count=COUNT, snr=0.1, box=BOX, pixel_size_A=3.8)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # the least number of rows that a block can have, 64
    monkeypatch.setattr(particle_store, "BLOCK_BYTES", 1)


def budget(rows: int, radius: int = LARGEST) -> int:
    """Return the memory that keeps so many particles beside the blocks in work and what is remembered of each particle."""
    pixels = int(np.rint(0.5 * np.pi * radius**2))
    return 8 * rows * pixels + particle_store.BLOCKS_IN_WORK + particle_store.REMEMBERED_BYTES * COUNT


def passes(store: ParticleStore, radii: list[int]) -> list[tuple[int, slice, np.ndarray, np.ndarray]]:
    return [(radius, rows, block.values.copy(), block.ctf) for radius in radii for rows, block in store.blocks(radius)]


@pytest.mark.parametrize("memory_bytes", [0, budget(40), budget(150), budget(COUNT + 10), None])
@pytest.mark.parametrize("threads", [1, 3])
def test_no_budget_changes_a_block(
    dataset: Dataset, memory_bytes: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopipe.projection.particle_images.CHUNK_BYTES", threads * 4 * BOX * BOX)
    whole = load_particle_spectra(dataset.table, radius=LARGEST)
    rows = np.random.default_rng(0).permutation(COUNT)[:150]
    store = ParticleStore.open(dataset.table, memory_bytes=memory_bytes, threads=threads).subset(rows)
    # the radius grows, shrinks (what is kept moves together) and grows again
    found = passes(store, [LARGEST, 9, 9, 14, 6, LARGEST])
    assert [part for radius, part, *_ in found if radius == 14] == [slice(0, 64), slice(64, 128), slice(128, 150)]
    for radius, part, values, ctf in found:
        expected = whole.subset(rows[part]).crop(radius)
        np.testing.assert_array_equal(values, expected.values)
        np.testing.assert_array_equal(ctf, expected.ctf)


def test_a_few_particles_beyond_the_radius_that_is_kept_are_read(dataset: Dataset) -> None:
    store = ParticleStore.open(dataset.table, memory_bytes=budget(40))
    list(store.blocks(5))
    whole = load_particle_spectra(dataset.table, radius=LARGEST)
    rows = np.array([7, 180, 3])
    np.testing.assert_array_equal(store.block(rows, LARGEST).values, whole.values[rows])
    np.testing.assert_array_equal(store.block(rows, 4).values, whole.subset(rows).crop(4).values)


def test_more_particles_are_kept_inside_a_smaller_radius_and_never_more_than_the_budget(dataset: Dataset) -> None:
    store = ParticleStore.open(dataset.table, memory_bytes=budget(50))
    shares = []
    for radius in (LARGEST, 12, 4):
        list(store.blocks(radius))
        shares.append(store.kept.share)
    # pixels go with the square of the radius: 50, 200 (of 50 x 4) and all particles
    assert shares[0] == pytest.approx(50 / COUNT, abs=0.03)
    assert shares[1] > 0.9
    assert shares[2] == 1
    assert store.kept.nbytes <= budget(50) - particle_store.REMEMBERED_BYTES * COUNT


def test_a_block_that_is_dropped_takes_no_memory_while_the_next_one_is_made(dataset: Dataset) -> None:
    store = ParticleStore.open(dataset.table, memory_bytes=budget(40))
    blocks = store.blocks(LARGEST)
    _, block = next(blocks)
    values, ctf = weakref.ref(block.values), weakref.ref(block.ctf)
    del block
    assert values() is None
    assert ctf() is None
    blocks.close()


def test_what_a_method_writes_into_a_block_is_not_kept(dataset: Dataset) -> None:
    store = ParticleStore.open(dataset.table)
    first = passes(store, [LARGEST])
    for _, block in store.blocks(LARGEST):
        block.values[...] = 0
    for one, other in zip(first, passes(store, [LARGEST]), strict=True):
        np.testing.assert_array_equal(one[2], other[2])


def test_reading_a_block_takes_the_memory_of_the_block(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    # a few images at a time are read and transformed
    monkeypatch.setattr("cryopipe.projection.particle_images.CHUNK_BYTES", 4 * BOX * BOX)
    for memory_bytes in (0, None):
        store = ParticleStore.open(dataset.table, memory_bytes=memory_bytes)
        store.kept.keep(LARGEST)
        rows = np.arange(COUNT)
        store.kept.values(rows[:1], LARGEST, 1)
        tracemalloc.start()
        values = store.kept.values(rows, LARGEST, 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # a portion of 64 rows, copied out of what is kept, and the images in work come on top
        assert peak < 1.6 * values.nbytes


def test_what_is_kept_is_not_read_again(dataset: Dataset, tmp_path: Path) -> None:
    stack = tmp_path / "copy.mrcs"
    stack.write_bytes((dataset.folder / "particles.mrcs").read_bytes())
    names = [format_image_name(i, stack) for i in range(COUNT)]
    table = dataset.table.with_rows(dataset.table.rows.assign(rlnImageName=names))
    store = ParticleStore.open(table)
    first = passes(store, [9])
    stack.unlink()
    for one, other in zip(first, passes(store, [9, 5]), strict=False):
        np.testing.assert_array_equal(one[2], other[2])


def test_rows_of_one_label_are_never_parted(dataset: Dataset) -> None:
    store = ParticleStore.open(dataset.table)
    sizes = [70, 30, 30, 30, 5, 35]
    labels = np.repeat([f"mic_{i}" for i in range(len(sizes))], sizes)
    cuts = store.cuts(labels)
    assert [cut.stop - cut.start for cut in cuts] == [70, 60, 35, 35]
    assert [rows for rows, _ in store.blocks(5, together=labels)] == cuts


def test_an_image_that_is_not_finite_is_named_although_a_thread_reads_it(dataset: Dataset, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(COUNT, BOX, BOX)).astype(np.float32)
    stack = tmp_path / "bad.mrcs"
    write_stack(stack, images, 3.8)
    raw = np.memmap(stack, np.float32, "r+", offset=1024, shape=images.shape)
    raw[130, 3, 4] = np.nan
    raw.flush()
    names = [format_image_name(i, stack) for i in range(COUNT)]
    store = ParticleStore.open(dataset.table.with_rows(dataset.table.rows.assign(rlnImageName=names)))
    with pytest.raises(InputError, match=r"bad\.mrcs.*131"):
        list(store.blocks(LARGEST))


def test_a_method_that_stops_in_the_middle_leaves_no_thread_behind(dataset: Dataset) -> None:
    import threading

    before = threading.active_count()
    blocks = ParticleStore.open(dataset.table, memory_bytes=0).blocks(9)
    next(blocks)
    blocks.close()
    assert threading.active_count() == before


def test_cropped_and_masked_images_are_those_of_a_smaller_box(dataset: Dataset, tmp_path: Path) -> None:
    from cryopipe.io.mrc import read_stack

    images, _ = read_stack(dataset.folder / "particles.mrcs")
    stack = tmp_path / "small.mrcs"
    write_stack(stack, images[:, 5:45, 5:45], 3.8)
    names = [format_image_name(i, stack) for i in range(COUNT)]
    optics = dataset.table.optics.assign(rlnImageSize=40)
    small = StarTable("particles", optics, dataset.table.rows.assign(rlnImageName=names))
    expected = load_particle_spectra(small, radius=12, mask_diameter_A=100)
    store = ParticleStore.open(dataset.table, mask_diameter_A=100, crop_box=40)
    found = store.block(np.arange(COUNT), 12)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.ctf, expected.ctf)
