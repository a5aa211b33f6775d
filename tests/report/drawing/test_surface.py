"""The rendered surface shows the body that is there, lit and oriented as a picture is read."""

from __future__ import annotations

import numpy as np

from cryopipe.report.drawing.surface import render_surface


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0), box: int = 48) -> np.ndarray:
    z, y, x = np.indices((box, box, box)) - box // 2
    distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)


def test_a_ball_covers_the_area_of_a_disc() -> None:
    volume = ball(15)
    picture = render_surface(volume, threshold=0.5, size=200, view_deg=(0, 0))
    covered = (picture < 250).any(-1).sum()
    extent = 15 * 1.08 + 2  # the frame is the body's reach plus a margin, as in the renderer
    expected = np.pi * (15 / (2 * extent) * 200) ** 2
    assert abs(covered / expected - 1) < 0.05  # edge pixels of a disc of 150 px diameter are 2.7 % of its area


def test_light_comes_from_the_upper_left() -> None:
    picture = (
        render_surface(ball(15), threshold=0.5, size=100, view_deg=(0, 0), colour_radii=(0, 100)).astype(float).sum(-1)
    )
    assert picture[35, 35] > 1.2 * picture[65, 65]


def test_a_body_on_the_right_is_shown_on_the_right_and_one_below_below() -> None:
    x_shifted = render_surface(ball(5, (0, 0, 12)), threshold=0.5, size=100, view_deg=(0, 0))
    y_shifted = render_surface(ball(5, (0, 12, 0)), threshold=0.5, size=100, view_deg=(0, 0))
    assert np.argwhere((x_shifted < 250).any(-1))[:, 1].min() > 50
    assert np.argwhere((y_shifted < 250).any(-1))[:, 0].min() > 50


def test_the_nearer_of_two_bodies_hides_the_farther() -> None:
    near, far = ball(6, (-12, 0, 0)), ball(6, (12, 0, 0))
    alone = render_surface(near, threshold=0.5, size=80, view_deg=(0, 0), colour_radii=(0, 30))
    both = render_surface(np.maximum(near, far), threshold=0.5, size=80, view_deg=(0, 0), colour_radii=(0, 30))
    assert np.abs(alone[40, 40].astype(int) - both[40, 40].astype(int)).max() <= 2


def test_an_empty_map_gives_an_empty_picture() -> None:
    assert (render_surface(np.zeros((16, 16, 16), np.float32), threshold=0.5, size=20) == 255).all()
