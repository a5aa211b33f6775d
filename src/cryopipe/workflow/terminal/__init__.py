"""Output of a run on the terminal: one line for each job that ends, warnings, and at the end the results or the failures."""
