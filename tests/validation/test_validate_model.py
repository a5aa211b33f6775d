from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from cryopipe.config.validation import ValidateModel
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.imaging.transform import invert_hand, rotate_volume
from cryopipe.io.mrc import write_volume
from cryopipe.simulation.atoms import read_model
from cryopipe.simulation.potential import potential_map
from cryopipe.validation import validate_model as step
from cryopipe.validation.maps import centred_crop, on_grid

REALDATA = Path(__file__).parents[2].parent / "shared" / "realdata" / "models" / "4v1w.cif"


def write_protein(path: Path, *, atoms: int = 900, seed: int = 1) -> None:
    """Write a PDB file of carbon atoms that walk at random inside a ball: compact, asymmetric."""
    rng = np.random.default_rng(seed)
    position, lines = np.zeros(3), []
    for i in range(atoms):
        step_A = rng.normal(size=3)
        step_A *= 1.5 / np.linalg.norm(step_A)
        position = position + step_A
        if np.linalg.norm(position / [1.0, 0.8, 0.6]) > 20:
            position = position - 2 * step_A
        x, y, z = position
        lines.append(
            f"ATOM  {i + 1:5d}  CA  ALA A{i % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 30.00           C  "
        )
    path.write_text("\n".join([*lines, "END"]) + "\n")


def run(map_path: Path, model: Path, folder: Path, **options: object) -> dict:
    outputs = {"summary": folder / "model.json", "fsc": folder / "fsc.star", "density": folder / "density.mrc"}
    params = ValidateModel(**({"symmetry": "C1", "particle_diameter_A": 45} | options))
    context = Context("validate_model", folder, threads=2, log=logging.getLogger("test"))
    step.main({"map": map_path, "model": model}, outputs, params, context)
    assert outputs["density"].exists()
    return json.loads(outputs["summary"].read_text())["model"]


def test_a_model_is_laid_over_a_turned_noisy_map_of_the_other_hand(tmp_path: Path) -> None:
    model = tmp_path / "model.pdb"
    write_protein(model)
    volume = potential_map(read_model(model), box=48, pixel_size_A=1.8)
    moved = rotate_volume(volume, euler_to_matrix(70, 50, 20), shift_xyz_px=(1.3, -0.6, 0.4), oversampling=2)
    noisy = moved + 0.3 * moved.std() * np.random.default_rng(0).standard_normal(moved.shape)
    write_volume(tmp_path / "map.mrc", invert_hand(noisy).astype(np.float32), 1.8)
    numbers = run(tmp_path / "map.mrc", model, tmp_path)
    assert numbers["mirrored"]
    # signal and noise balance near Nyquist (3.6 Å); another particle of the same shape gives 9 Å
    assert numbers["fsc05_A"] < 5
    assert numbers["atoms"] == 900


def test_a_map_of_something_else_does_not_fit(tmp_path: Path) -> None:
    # both are ellipsoids of one size: they agree in shape, to 9 Å, and in nothing finer
    write_protein(tmp_path / "model.pdb")
    write_protein(tmp_path / "other.pdb", seed=9)
    volume = potential_map(read_model(tmp_path / "other.pdb"), box=48, pixel_size_A=1.8)
    write_volume(tmp_path / "map.mrc", volume, 1.8)
    assert run(tmp_path / "map.mrc", tmp_path / "model.pdb", tmp_path, allow_hand=False)["fsc05_A"] > 8


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "map.mrc", np.ones((16,) * 3, np.float32), 1.8)
    (tmp_path / "model.pdb").write_text("nothing\n")
    with pytest.raises(InputError, match=r"model\.pdb"):
        run(tmp_path / "map.mrc", tmp_path / "model.pdb", tmp_path)


def test_resampling_to_another_grid_keeps_the_map(tmp_path: Path) -> None:
    write_protein(tmp_path / "model.pdb")
    model = read_model(tmp_path / "model.pdb")
    coarse = on_grid(potential_map(model, box=96, pixel_size_A=1.2), 1.2, box=48, new_pixel_size_A=1.8)
    direct = potential_map(model, box=48, pixel_size_A=1.8)
    # both are band-limited at 3.6 Å; the corners beyond the shells differ
    assert fourier_shell_correlation(coarse, direct)[1:23].min() > 0.999
    assert centred_crop(centred_crop(direct, 60), 48).tobytes() == direct.tobytes()


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.exists(), reason="../shared/realdata is absent")
def test_the_horse_spleen_model_is_a_whole_24_mer() -> None:
    model = read_model(REALDATA)
    assert len(model.elements) > 24 * 1200
    assert 110 < model.diameter_A < 140
