"""Atomic models: the embedded apoferritin, or copies of any PDB or mmCIF file, as elements, positions and B factors."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cryopipe.errors import InputError
from cryopipe.imaging.symmetry import symmetry_operators

#: The archive's address of an entry's mmCIF file.
DOWNLOAD = "https://files.rcsb.org/download/{}.cif"


@dataclass(frozen=True)
class AtomicModel:
    """Atoms of a particle, centred on its origin.

    Attributes
    ----------
    elements : array str [n]
    positions_A : float64 [n, 3]
        x, y, z.
    b_factors_A2 : float64 [n]
    occupancies : float64 [n]
    """

    elements: NDArray[np.str_]
    positions_A: NDArray[np.float64]
    b_factors_A2: NDArray[np.float64]
    occupancies: NDArray[np.float64]

    def placed(self, rotations: ArrayLike, shifts_A: ArrayLike) -> AtomicModel:
        """Return the copies of the model at ``R r + t``, for rotations ``[n, 3, 3]`` and shifts ``[n, 3]`` in Å."""
        pairs = list(zip(np.asarray(rotations, np.float64), np.asarray(shifts_A, np.float64), strict=True))
        count = len(pairs)
        return AtomicModel(
            np.tile(self.elements, count),
            np.concatenate([self.positions_A @ rotation.T + shift for rotation, shift in pairs]),
            np.tile(self.b_factors_A2, count),
            np.tile(self.occupancies, count),
        )

    def expanded(self, group: str) -> AtomicModel:
        """Return the model with all copies that the point group ``group`` makes of it."""
        operators = symmetry_operators(group)
        return self.placed(operators, np.zeros((len(operators), 3)))

    def centred(self) -> AtomicModel:
        """Return the model with its centre of mass at the origin."""
        weights = np.array([gemmi.Element(str(name)).weight for name in self.elements])
        centre = (self.positions_A * weights[:, None]).sum(0) / weights.sum()
        return replace(self, positions_A=self.positions_A - centre)

    @property
    def diameter_A(self) -> float:
        """Twice the largest distance of an atom from the origin."""
        return float(2 * np.linalg.norm(self.positions_A, axis=1).max())


def apoferritin() -> AtomicModel:
    """Return the 24-mer of human heavy-chain apoferritin (PDB 6Z6U) in the setting of RELION's group O."""
    table = files("cryopipe.simulation").joinpath("data/apoferritin_6z6u_chain.tsv").read_text()
    rows = [line.split("\t") for line in table.splitlines() if not line.startswith("#")]
    numbers = np.array([row[1:] for row in rows], dtype=np.float64)
    chain = AtomicModel(np.array([row[0] for row in rows]), numbers[:, :3], numbers[:, 3], numbers[:, 4])
    return chain.expanded("O")


def read_model(
    path: str | Path,
    *,
    assembly: str | None = "1",
    operators: Sequence[Sequence[float]] = (),
    group: str = "C1",
) -> AtomicModel:
    """Read the protein and nucleic-acid atoms of a PDB or mmCIF file, centred on their centre of mass.

    Copies, if any, are made in the file's frame: first those of ``operators``, then those of ``group`` about its origin.

    Parameters
    ----------
    path : path
        ``.pdb``, ``.cif``, ``.ent``, also gzipped.
    assembly : str, optional
        Biological assembly to generate when the file names it; None takes the coordinates as they are.
    operators : sequence of 12 numbers each
        Copies to make: the rows of a rotation, each followed by its component of the shift in Å, as BIOMT records have
        them; none leaves the atoms where they are.
    group : str
        Point group whose operators then make the particle.

    Raises
    ------
    InputError
        The file cannot be read or holds no such atoms.
    """
    path = Path(path)
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a PDB or mmCIF file ({error}). Give another file, or download it again."
        ) from error
    structure.setup_entities()
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_ligands_and_waters()
    if assembly is not None and any(a.name == assembly for a in structure.assemblies):
        try:
            structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.Dup)
        except RuntimeError as error:
            raise InputError(
                f"{path}: the biological assembly {assembly} cannot be generated ({error}). "
                "Use assembly: null for the coordinates as they are."
            ) from error
    atoms = [atom for chain in structure[0] for residue in chain for atom in residue] if len(structure) else []
    if not atoms:
        raise InputError(f"{path}: the file has no protein or nucleic-acid atoms. Give the model of the particle.")
    model = AtomicModel(
        np.array([atom.element.name for atom in atoms]),
        np.array([atom.pos.tolist() for atom in atoms]),
        np.array([atom.b_iso for atom in atoms]),
        np.array([atom.occ for atom in atoms]),
    )
    if operators:
        rows = np.asarray(operators, np.float64).reshape(-1, 3, 4)
        model = model.placed(rows[:, :, :3], rows[:, :, 3])
    return model.expanded(group).centred()


def symmetry_error_A(model: AtomicModel, group: str) -> float:
    """Return how well a model has a point group, in Å.

    Every atom is moved by every operator, and its distance to the nearest atom is measured there. The result is the
    99th percentile of these distances over the atoms, for the worst operator.
    """
    tree = cKDTree(model.positions_A)
    return max(float(np.percentile(tree.query(model.positions_A @ g.T)[0], 99)) for g in symmetry_operators(group))


def fetch_model(pdb_id: str, folder: Path) -> Path:
    """Download the mmCIF file of a PDB entry into ``folder`` unless it is there, and return its path.

    Raises
    ------
    InputError
        The entry cannot be downloaded (no network, or no such entry); the message asks for a path instead.
    """
    target = folder / f"{pdb_id.lower()}.cif"
    if target.exists():
        return target
    from cryopipe.io.atomic import atomic_write

    url = DOWNLOAD.format(pdb_id.upper())
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise InputError(
            f"PDB entry {pdb_id}: the download from {url} failed ({error}). Give the path of a model file."
        ) from error
    atomic_write(target, data)
    return target
