"""The loops of `cryopipe.kernels.volumes`."""
