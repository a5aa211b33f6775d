"""The CTF estimator that fits the whole power spectrum: rings, envelope, background, criteria."""
