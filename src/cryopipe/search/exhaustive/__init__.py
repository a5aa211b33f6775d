"""Search of every orientation and shift of a grid, as matrix products."""
