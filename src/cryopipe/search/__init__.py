"""The global search of poses: grids of orientations and shifts, their priors, and the comparison with images."""
