"""The loops of `cryopipe.kernels.gain`."""
