"""The forward model that all searches share: particle spectra, references, noise, phases."""
