"""Stage validation: how good a map is, against itself, the truth and a model."""
