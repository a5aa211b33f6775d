"""The step: complete truth, reproducible whatever the threads, resumed after a kill, honest about what it lacks."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from cryopipe.config.simulation import SimulateMovies
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import irfft2_centred, rfft2_centred, rfftn_centred, shift_images
from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.movies import open_movie
from cryopipe.io.mrc import read_image, read_volume
from cryopipe.io.star import read_blocks, read_table
from cryopipe.simulation.atoms import read_model, symmetry_error_A
from cryopipe.simulation.simulate_movies import particle_model
from tests.simulation.conftest import SMALL

Simulate = Callable[..., dict[str, Path]]


def contents(files: dict[str, Path]) -> dict[str, bytes]:
    folder = files["movies"].parent
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def corrected_sum(files: dict[str, Path], row: Any) -> np.ndarray:
    """Sum of the frames, gain-corrected and aligned by the truth, dead and hot pixels replaced by the mean."""
    gain, _ = read_image(files["gain"])
    turned = gain[:, ::-1] if row.crpGainOrientation.startswith("mirror") else gain
    turned = np.rot90(turned, int(row.crpGainOrientation.rsplit("rot", 1)[1]) // 90)
    shifts = read_blocks(files["truth_movies"])["global_shift"]
    shifts = shifts[shifts["crpItem"] == row.crpItem].sort_values("rlnMicrographFrameNumber")
    total = np.zeros(turned.shape, np.float32)
    with open_movie(files["movies"].parent.parent / row.rlnMicrographMovieName) as movie:
        for frame, shift in zip(movie, shifts[["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy(), strict=True):
            image = frame * turned
            bad = (turned == 0) | (image > image.mean() + 8 * image.std())
            total += shift_images(np.where(bad, image[~bad].mean(), image), shift)
    return total


def test_tables_join_and_hold_every_fact(dataset: dict[str, Path]) -> None:
    listing = read_table(dataset["movies"], "movies")
    truth = read_blocks(dataset["truth_movies"])
    particles = read_table(dataset["truth_particles"], "particles")
    items = [f"mov_{i:04d}" for i in range(1, 5)]
    assert list(listing.rows["crpItem"]) == list(truth["movies"]["crpItem"]) == items
    assert sorted(truth["movies"]["crpKind"]) == ["bad_ctf", "drift", "ok", "ok"]
    assert listing.single("rlnMicrographOriginalPixelSize") == 2.0
    assert listing.single("rlnVoltage") == 300.0
    assert set(particles.rows["crpItem"]) == set(items)
    counts = particles.rows["crpItem"].value_counts()
    assert {item: counts[item] for item in items} == dict(zip(items, truth["movies"]["crpParticles"], strict=True))
    assert {"apo", "iron"} == set(particles.rows["crpKind"])
    joined = particles.rows.merge(truth["movies"], on="crpItem", suffixes=("", "Movie"))
    # a particle above the middle of the ice is less under focus
    np.testing.assert_allclose(joined["rlnDefocusU"], joined["rlnDefocusUMovie"] - joined["crpHeight"], atol=1e-2)
    assert (particles.rows["rlnDefocusU"] >= particles.rows["rlnDefocusV"]).all()
    assert particles.rows[["rlnCoordinateX", "rlnCoordinateY"]].min().min() > 125 / 2 / 2.0


def test_movies_have_the_stated_shape_and_mean_count(dataset: dict[str, Path]) -> None:
    root = dataset["movies"].parent.parent
    for name in read_table(dataset["movies"], "movies").rows["rlnMicrographMovieName"]:
        with open_movie(root / name) as movie:
            assert movie.shape == (5, 288, 320)
            assert movie.dtype == np.uint8
            assert movie.pixel_size_A == pytest.approx(2.0)
            # 8 e/Å² · 4 Å² less what 350 Å of ice takes away (a tenth), contaminants more
            assert 0.8 * 32 < movie.read_frame(2).mean() < 0.93 * 32


def test_shifts_are_zero_in_the_middle_frame_and_only_the_drifting_movie_exceeds_15_A(dataset: dict[str, Path]) -> None:
    truth = read_blocks(dataset["truth_movies"])
    kinds = truth["movies"].set_index("crpItem")["crpKind"]
    for item, shifts in truth["global_shift"].groupby("crpItem"):
        track = shifts[["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy() * 2.0
        assert not track[5 // 2].any()
        assert (np.ptp(track, axis=0).max() > 15.0) == (kinds[item] == "drift")
        if kinds[item] != "drift":
            assert np.abs(np.diff(track, axis=0)).max() < 5.0
    assert len(truth["local_motion"]) == 4 * 5


def projection(spectrum: np.ndarray, rotation: np.ndarray, box: int) -> np.ndarray:
    """Central slice of a volume's spectrum at A^T (kx, ky, 0), by trilinear interpolation of the padded spectrum."""
    size = spectrum.shape[0]
    ky, kx = np.meshgrid(np.fft.fftfreq(box, 1 / box), np.arange(box // 2 + 1), indexing="ij")
    k = (rotation.T[:, :2] @ np.stack([kx.ravel(), ky.ravel()])) * (size / box)  # x, y, z
    flip = k[0] < 0
    k[:, flip] *= -1
    where = np.stack([k[2] % size, k[1] % size, k[0]])
    parts = [map_coordinates(part, where, order=1, mode="grid-wrap") for part in (spectrum.real, spectrum.imag)]
    values = parts[0] + 1j * np.where(flip, -parts[1], parts[1])
    return np.asarray(irfft2_centred(values.reshape(ky.shape).astype(np.complex64), (box, box)))


def test_particle_images_are_projections_of_the_truth_map_at_the_true_poses(dataset: dict[str, Path]) -> None:
    truth = read_blocks(dataset["truth_movies"])
    particles = read_table(dataset["truth_particles"], "particles").rows
    volume, pixel = read_volume(dataset["truth_map"])
    assert pixel == pytest.approx(2.0)
    box = 80
    cut = (len(volume) - box) // 2
    padded = np.zeros((2 * box,) * 3, np.float32)
    start = box - box // 2
    padded[start : start + box, start : start + box, start : start + box] = volume[
        cut : cut + box, cut : cut + box, cut : cut + box
    ]
    spectrum = rfftn_centred(padded)
    right, wrong = [], []
    turned_away = euler_to_matrix(37.0, 52.0, 11.0)
    for row in truth["movies"][truth["movies"]["crpKind"] == "ok"].itertuples():
        image = corrected_sum(dataset, row)
        image = -(image / image.mean() - 1)  # protein white
        for p in particles[(particles["crpItem"] == row.crpItem) & (particles["crpKind"] == "apo")].itertuples():
            x, y = p.rlnCoordinateX, p.rlnCoordinateY
            left, top = round(x) - box // 2, round(y) - box // 2
            if min(left, top) < 0 or left + box > image.shape[1] or top + box > image.shape[0]:
                continue
            patch = shift_images(image[top : top + box, left : left + box], (round(x) - x, round(y) - y))
            k = np.hypot(np.fft.fftfreq(box, 2.0)[:, None], np.fft.rfftfreq(box, 2.0))
            transfer = ctf(
                *np.broadcast_arrays(np.fft.rfftfreq(box, 2.0)[None], np.fft.fftfreq(box, 2.0)[:, None]),
                CtfParameters(p.rlnDefocusU, p.rlnDefocusV, p.rlnDefocusAngle),
            )
            band = (k > 1 / 25) & (k < 1 / 8)  # detail that tells orientations apart
            data = rfft2_centred(patch)[band] * 1.0
            for store, angles in ((right, np.eye(3)), (wrong, turned_away)):
                pose = euler_to_matrix(p.rlnAngleRot, p.rlnAngleTilt, p.rlnAnglePsi) @ angles
                model = (rfft2_centred(projection(spectrum, pose, box)) * transfer)[band]
                store.append(float((data * model.conj()).real.sum() / np.linalg.norm(data) / np.linalg.norm(model)))
    assert len(right) >= 5
    assert np.mean(right) > 0.2
    # chance correlation of about 600 complex numbers has the deviation 0.03
    assert np.mean(right) > np.mean(wrong) + 0.1
    assert np.min(right) > 0.05


def test_the_same_seed_gives_the_same_bytes_whatever_the_threads(
    dataset: dict[str, Path], tmp_path: Path, simulate: Simulate
) -> None:
    again = simulate(tmp_path, threads=2)
    assert contents(again) == contents(dataset)


def test_another_seed_gives_other_movies(dataset: dict[str, Path], tmp_path: Path, simulate: Simulate) -> None:
    other = contents(simulate(tmp_path, SMALL.model_copy(update={"movies": 1}), seed=4))
    assert other["movies/mov_0001.tif"] != contents(dataset)["movies/mov_0001.tif"]


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path, simulate: Simulate) -> None:
    params = SMALL.model_copy(update={"movies": 2, "frames": 2})
    files = simulate(tmp_path, params)
    whole = contents(files)
    first, second = (files["movies"].parent / f"movies/mov_000{i}.tif" for i in (1, 2))
    stamp = first.stat().st_mtime_ns
    second.unlink()
    files["truth_map"].unlink()
    assert contents(simulate(tmp_path, params)) == whole
    assert first.stat().st_mtime_ns == stamp, "a finished movie is not made again"


def test_mrc_movies_hold_the_same_counts(tmp_path: Path, simulate: Simulate) -> None:
    params = SMALL.model_copy(update={"movies": 1, "frames": 2})
    tif = simulate(tmp_path / "tif", params)
    mrc = simulate(tmp_path / "mrc", params.model_copy(update={"movie_format": "mrcs"}))
    with (
        open_movie(tif["movies"].parent / "movies/mov_0001.tif") as a,
        open_movie(mrc["movies"].parent / "movies/mov_0001.mrcs") as b,
    ):
        np.testing.assert_array_equal(a.read_frame(1), b.read_frame(1))


def test_a_model_can_be_given_by_its_path(tmp_path: Path) -> None:
    structure = gemmi.Structure()
    chain = gemmi.Chain("A")
    for number, name in enumerate(("GLY", "ALA", "SER"), 1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = name, gemmi.SeqId(str(number))
        atom = gemmi.Atom()
        atom.name, atom.element = "CA", gemmi.Element("C")
        atom.pos, atom.b_iso = gemmi.Position(10.0 + 4 * number, 3.0, -5.0), 30.0
        residue.add_atom(atom)
        chain.add_residue(residue)
    model = gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    path = tmp_path / "peptide.pdb"
    structure.write_pdb(str(path))
    atoms, _ = particle_model(SimulateMovies(preset="tiny", model=str(path), symmetry="C1"), tmp_path)
    np.testing.assert_allclose(atoms.positions_A, [[-4, 0, 0], [0, 0, 0], [4, 0, 0]], atol=1e-3)


def test_a_pdb_id_without_a_network_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError, match=r"4v1w.*no network.*Give the path"):
        particle_model(SimulateMovies(preset="tiny", model="4v1w"), tmp_path)


def test_a_model_that_is_neither_file_nor_id_and_a_wrong_symmetry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a PDB id"):
        particle_model(SimulateMovies(preset="tiny", model="missing.pdb"), tmp_path)
    with pytest.raises(InputError, match="has symmetry O, but symmetry is C1"):
        particle_model(SimulateMovies(preset="tiny", symmetry="C1"), tmp_path)


CHAIN = Path(__file__).parents[2] / "config" / "test" / "apoferritin.pdb.gz"
#: One turn about x by 90°, then 50 Å along z.
BESIDE = [1, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 50]


def test_copies_of_a_chain_stand_where_the_operators_say_and_a_group_makes_the_rest() -> None:
    atoms = [a.pos.tolist() for part in gemmi.read_structure(str(CHAIN))[0] for residue in part for a in residue]
    count, chain = len(atoms), np.array(atoms)
    pair = read_model(CHAIN, assembly=None, operators=[[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], BESIDE])
    # by one shift, which brings the centre of mass to the origin, the chain and the chain turned about x and moved
    expected = np.concatenate([chain, chain[:, [0, 2, 1]] * [1, -1, 1] + [0, 0, 50]])
    assert np.ptp(pair.positions_A - expected, axis=0).max() < 1e-6
    whole = read_model(CHAIN, assembly=None, operators=[BESIDE], group="D2")
    assert len(whole.elements) == 4 * count
    assert symmetry_error_A(whole, "D2") < 1e-3 < 5 < symmetry_error_A(whole, "C3")


def test_the_assembly_of_a_file_is_what_its_chain_becomes_by_the_group() -> None:
    stated, made = read_model(CHAIN), read_model(CHAIN, assembly=None, group="O")
    apart = np.abs(np.sort(stated.positions_A, axis=0) - np.sort(made.positions_A, axis=0))
    assert apart.max() < 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operators": [[1, 0, 0]]}, "operator 1 has 3 numbers, not 12"),
        ({"operators": [BESIDE, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0]]}, "operator 2 is not a rotation"),
        ({"operators": [BESIDE], "model": None}, "model is null"),
    ],
)
def test_operators_that_place_no_copy_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulateMovies(**({"model": str(CHAIN)} | given))


def test_only_the_embedded_ferritin_is_loaded_with_iron_unless_it_is_asked_for() -> None:
    assert SimulateMovies().iron_share == 0.1
    assert SimulateMovies(model=str(CHAIN)).iron_share == 0
    assert SimulateMovies(model=str(CHAIN), iron_fraction=0.3).iron_share == 0.3
