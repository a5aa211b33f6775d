"""The estimator on logarithmic amplitudes of windows."""
