"""Frames of a camera whose gain is estimated: their smooth background, and the ranks of their values."""
