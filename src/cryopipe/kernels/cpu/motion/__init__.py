"""Loops of the search for a movie's track."""
