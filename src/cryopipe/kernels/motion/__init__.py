"""Tracks of movies: sums of the correlation maps of pairs of frames."""
