"""Continuous poses: each image moved from where it is, with defocus, scale and astigmatism on request."""
