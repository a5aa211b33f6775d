"""Stage initial_volume: a map from nothing but particles."""
