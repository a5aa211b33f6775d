"""Continuous refinement of each image's pose from its start, with defocus, scale and astigmatism on request."""
