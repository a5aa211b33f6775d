"""Which volume do posed images give: insertion, symmetry, Wiener division, half sets."""
