"""Which pose explains an image: grids, spectra, references, the global search and the continuous refinement."""
