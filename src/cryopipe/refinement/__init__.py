"""Stage refinement: the gold-standard map."""
