"""Stage particles: normalised particle images."""
