"""The CTF estimator that uses amplitude spectra."""
