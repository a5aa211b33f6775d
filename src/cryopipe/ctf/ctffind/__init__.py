"""The estimator on amplitude spectra."""
