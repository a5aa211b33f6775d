"""How far a parameter of particles or micrographs may move: priors whose widths are learned from the data."""
