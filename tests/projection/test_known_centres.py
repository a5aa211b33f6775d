from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cryopipe.errors import InputError
from cryopipe.projection.known_centres import known_centres_A


def test_origins_of_the_table_are_the_centres_and_without_them_the_image_is_centred() -> None:
    rows = pd.DataFrame({"rlnOriginXAngst": [1.5, -3.0], "rlnOriginYAngst": [0.0, 2.0]})
    assert known_centres_A(rows, side_A=100).tolist() == [[1.5, 0.0], [-3.0, 2.0]]
    assert known_centres_A(rows.drop(columns="rlnOriginYAngst"), side_A=100).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("value", [60.0, np.nan])
def test_an_origin_outside_the_image_is_refused_with_its_row_and_value(value: float) -> None:
    rows = pd.DataFrame({"rlnOriginXAngst": [1.5, value], "rlnOriginYAngst": [0.0, 2.0]})
    with pytest.raises(InputError, match=rf"particle 2 has origin \({value:g}, 2\)"):
        known_centres_A(rows, side_A=100)
