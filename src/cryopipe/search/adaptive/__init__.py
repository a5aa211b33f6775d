"""Search in nested cells of orientations and shifts while the radius doubles."""
