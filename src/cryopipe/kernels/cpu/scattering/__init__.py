"""The loops of `cryopipe.kernels.scattering`."""
