"""Spectra of images on Fourier pixels: shifted, and weighted for a reconstruction."""
