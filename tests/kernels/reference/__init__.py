"""Slow, obviously right float64 forms of the kernels: loops over the definition, no shared code with the fast ones."""
