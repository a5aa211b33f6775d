"""The estimator of the whole power spectrum: rings, envelope, background, criteria."""
