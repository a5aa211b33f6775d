"""The embedded model is the deposited one, poses are those drawn, an interrupted step leaves nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryopipe.config.simulation import SimulateMovies
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.geometry import angular_distance_deg, euler_to_matrix
from cryopipe.imaging.symmetry import in_asymmetric_unit, symmetry_operators
from cryopipe.simulation import simulate_movies
from cryopipe.simulation.atoms import apoferritin
from cryopipe.simulation.scene import draw_scene
from cryopipe.simulation.truth import particle_records

DEPOSITED = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "models" / "6z6u.pdb"
NAMES = {
    "movies": "movies.star",
    "gain": "gain.mrc",
    "truth_particles": "truth_particles.star",
    "truth_movies": "truth_movies.star",
    "truth_map": "truth_map.mrc",
}


def run_step(folder: Path, params: SimulateMovies, monkeypatch: pytest.MonkeyPatch, *, threads: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    context = Context("simulate_movies", Path("work"), seed=11, threads=threads)
    simulate_movies.main({}, {key: Path("out") / name for key, name in NAMES.items()}, params, context)
    return folder / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.realdata
@pytest.mark.skipif(not DEPOSITED.is_file(), reason=f"no deposited model at {DEPOSITED}")
def test_the_embedded_chain_expands_to_the_deposited_24_mer() -> None:
    structure = gemmi.read_structure(str(DEPOSITED))
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_ligands_and_waters()
    chains = [np.array([a.pos.tolist() for residue in chain for a in residue]) for chain in structure[0]]
    assert len(chains) == 24
    embedded = apoferritin()
    mine = embedded.positions_A[: len(chains[0])]
    # superpose one chain on the other (Kabsch); all 23 others must then follow
    a, b = mine - mine.mean(0), chains[0] - chains[0].mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    turn = (u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt).T
    moved = (embedded.positions_A - mine.mean(0)) @ turn.T + chains[0].mean(0)
    away, _ = cKDTree(moved).query(np.concatenate(chains))
    assert len(moved) == sum(map(len, chains))
    numbers = np.concatenate([[r.seqid.num for r in chain for _ in r] for chain in structure[0]])
    # measured: 0.024 Å, of which most is the lever of one chain's superposition; Ser 31 of chain A, the embedded one,
    # lies 0.5 Å from where the 23 other chains have it, and they agree with each other
    assert away[numbers != 31].max() < 0.05
    assert away[numbers == 31].max() < 0.6


@pytest.mark.parametrize("symmetry", ["O", "C1"])
def test_true_angles_are_the_drawn_poses_reduced_to_the_asymmetric_unit(symmetry: str) -> None:
    params = SimulateMovies(preset="demo", symmetry=symmetry)
    scene = draw_scene(params, "ok", np.random.default_rng(0))
    records = particle_records("m", "m.tif", scene, params)
    assert len(records) == len(scene.xy_px) > 20
    stated = euler_to_matrix(*([r[f"rlnAngle{name}"] for r in records] for name in ("Rot", "Tilt", "Psi")))
    away = angular_distance_deg(stated, scene.rotations, operators=symmetry_operators(symmetry))
    # float64 Euler angles in degrees and back: 1e-6° is a hundred million times their rounding
    assert away.max() < 1e-5
    assert in_asymmetric_unit(stated[:, 2], symmetry).all()
    assert [r["crpKind"] == "iron" for r in records] == [bool(atoms) for atoms in scene.iron_atoms]


def test_an_interrupt_inside_a_movie_leaves_no_half_movie_and_the_next_run_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SimulateMovies(
        preset="tiny", movies=3, width_px=256, height_px=224, frames=3, particles_per_movie=4, special_movies=False
    )
    whole = contents(run_step(tmp_path / "whole", params, monkeypatch))
    write: Callable[..., Any] = simulate_movies.write_movie

    def interrupted(path: Path, frames: Iterable[np.ndarray], *rest: Any, **options: Any) -> Any:
        def cut() -> Iterable[np.ndarray]:
            yield next(iter(frames))
            raise KeyboardInterrupt

        return write(path, cut() if path.stem == "mov_0002" else frames, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(simulate_movies, "write_movie", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_step(tmp_path / "cut", params, monkeypatch, threads=2)
    left = {p.name for p in (tmp_path / "cut" / "out").rglob("*") if p.is_file()}
    assert "mov_0001.tif" in left
    assert left <= {"mov_0001.tif", "mov_0003.tif"}
    assert contents(run_step(tmp_path / "cut", params, monkeypatch, threads=2)) == whole


def test_a_model_without_the_stated_symmetry_is_refused(tmp_path: Path) -> None:
    lines = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {8.0 * i:8.3f}{3.0 * i:8.3f}{0.5 * i * i:8.3f}  1.00 20.00           C"
        for i in range(1, 9)
    ]
    (tmp_path / "chain.pdb").write_text("\n".join([*lines, "END", ""]))
    with pytest.raises(InputError, match="does not have symmetry O"):
        simulate_movies.particle_model(
            SimulateMovies(preset="tiny", model=str(tmp_path / "chain.pdb"), symmetry="O"), tmp_path
        )
    model, _ = simulate_movies.particle_model(
        SimulateMovies(preset="tiny", model=str(tmp_path / "chain.pdb"), symmetry="C1"), tmp_path
    )
    assert len(model.elements) == 8


def test_a_defocus_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="the smaller first"):
        SimulateMovies(defocus_range_A=(18000.0, 8000.0))
