"""Stage initial_volume: an initial map from the particles alone."""
