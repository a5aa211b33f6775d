"""Search over all orientations and shifts of a grid, by matrix products."""
