"""Half cubes of a reconstruction: their shells, and the division by their weights."""
