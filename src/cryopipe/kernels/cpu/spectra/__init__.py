"""The loops of `cryopipe.kernels.spectra`."""
