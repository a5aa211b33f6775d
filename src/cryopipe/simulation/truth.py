"""The truth as tables, in the columns and conventions in which the pipeline states its estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.geometry import matrix_to_euler
from cryopipe.imaging.symmetry import reduce_to_asymmetric_unit
from cryopipe.simulation.camera import SimulatedCamera
from cryopipe.simulation.motion import LOCAL_TERMS
from cryopipe.simulation.scene import Scene

Record = dict[str, Any]


def particle_records(item: str, movie: str, scene: Scene, params: SimulateMovies) -> list[Record]:
    """Return one row per particle of a movie: place in the middle frame, pose, CTF at its height, kind.

    Parameters
    ----------
    item, movie : str
        Name of the movie, and its file as written in the tables.
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    """
    angles = matrix_to_euler(reduce_to_asymmetric_unit(scene.rotations, params.symmetry)).reshape(-1, 3)
    return [
        {
            "rlnMicrographName": movie,
            "crpItem": item,
            "rlnCoordinateX": float(scene.xy_px[i, 0]),
            "rlnCoordinateY": float(scene.xy_px[i, 1]),
            "rlnAngleRot": float(angles[i, 0]),
            "rlnAngleTilt": float(angles[i, 1]),
            "rlnAnglePsi": float(angles[i, 2]),
            "rlnDefocusU": float(scene.defocus_u_A - scene.heights_A[i]),
            "rlnDefocusV": float(scene.defocus_v_A - scene.heights_A[i]),
            "rlnDefocusAngle": float(scene.defocus_angle_deg),
            "crpHeight": float(scene.heights_A[i]),
            "crpKind": "iron" if scene.iron_atoms[i] else "apo",
        }
        for i in range(len(scene.xy_px))
    ]


def movie_record(item: str, movie: str, scene: Scene, params: SimulateMovies, camera: SimulatedCamera) -> Record:
    """Return the row of one movie.

    Parameters
    ----------
    item, movie : str
        Name of the movie, and its file as written in the tables.
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    camera : SimulatedCamera
        Its gain reference has the orientation that the row states.
    """
    return {
        "rlnMicrographMovieName": movie,
        "crpItem": item,
        "crpKind": scene.kind,
        "rlnDefocusU": float(scene.defocus_u_A),
        "rlnDefocusV": float(scene.defocus_v_A),
        "rlnDefocusAngle": float(scene.defocus_angle_deg),
        "rlnCtfBfactor": float(scene.b_factor_A2),
        "rlnMicrographDoseRate": float(params.value("dose_per_frame_e_A2")),
        "crpFrames": int(params.value("frames")),
        "crpParticles": len(scene.xy_px),
        "crpContaminants": len(scene.contaminants),
        "crpGainOrientation": camera.orientation,
    }


def shift_records(item: str, scene: Scene) -> list[Record]:
    """Return the shifts (pixels) to apply to each frame, as align_movies states them: minus the motion of the specimen.

    ``crpLocalCourse`` is the factor of the local field in the frame.
    """
    motion = scene.motion
    return [
        {
            "crpItem": item,
            "rlnMicrographFrameNumber": frame + 1,
            "rlnMicrographShiftX": float(-x),
            "rlnMicrographShiftY": float(-y),
            "crpLocalCourse": float(course),
        }
        for frame, ((x, y), course) in enumerate(zip(motion.shifts_px, motion.course, strict=True))
    ]


def local_records(item: str, scene: Scene) -> list[Record]:
    """Return the coefficients of the local field (`motion.local_basis`), as shifts to apply, in pixels."""
    return [
        {
            "crpItem": item,
            "crpPowerU": p,
            "crpPowerV": q,
            "crpCoefficientX": float(-x),
            "crpCoefficientY": float(-y),
        }
        for (p, q), (x, y) in zip(LOCAL_TERMS, scene.motion.local_px, strict=True)
    ]


def frame_of(records: list[Record], columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return records as a table with an optics group; ``columns`` name those of an empty one."""
    frame = pd.DataFrame(records, columns=None if records else list(columns))
    return frame.assign(rlnOpticsGroup=np.ones(len(frame), np.int64))


PARTICLE_COLUMNS = (
    "rlnMicrographName", "crpItem", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
    "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "crpHeight", "crpKind",
)  # fmt: skip
