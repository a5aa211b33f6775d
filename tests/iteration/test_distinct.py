"""Candidates of a global search lie apart from each other, and from the pose that they are alternatives to."""

from __future__ import annotations

import numpy as np

from cryopipe.imaging.geometry import angular_distance_deg, rotation_from_vector
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.distinct import distinct


def turned(*degrees: float) -> np.ndarray:
    return np.stack([rotation_from_vector(np.radians([angle, 0, 0])) for angle in degrees])[None]


def test_neighbours_of_the_best_and_its_symmetry_mates_leave_room_for_others() -> None:
    rotations = turned(0, 4, 92, 30, 33, 50)  # 92 is 2 degrees from a mate of 0 in O
    operators = symmetry_operators("O")
    assert distinct(rotations, operators, 10, 3).tolist() == [[0, 3, 5]]
    assert distinct(rotations, operators, 10, 2, known=turned(31)[0]).tolist() == [[0, 5]]


def test_where_too_few_lie_apart_the_best_of_the_rest_follow_and_none_comes_twice() -> None:
    rotations = turned(0, 1, 2, 60)
    found = distinct(rotations, np.eye(3)[None], 10, 4)
    assert found.tolist() == [[0, 3, 1, 2]]
    assert angular_distance_deg(rotations[0, found[0, 0]], rotations[0, found[0, 1]]) > 10
