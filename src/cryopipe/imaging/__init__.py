"""The field's mathematics on arrays: Fourier, optics, orientations, symmetry, filters, masks, correlation."""
