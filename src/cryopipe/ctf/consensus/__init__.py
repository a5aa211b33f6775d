"""The consensus of several CTF estimators, and the row that goes on."""
