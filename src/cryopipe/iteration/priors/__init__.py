"""Priors that limit the change of a parameter of particles or micrographs. Their widths are estimated from the data."""
