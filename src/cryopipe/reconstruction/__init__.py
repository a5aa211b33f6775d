"""Reconstruction of a volume from posed images: insertion, symmetry, Wiener division, half sets."""
