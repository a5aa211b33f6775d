"""The CTF estimator that uses logarithmic amplitudes of windows."""
