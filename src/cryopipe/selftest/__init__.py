"""A self-test of about a minute: every kernel against its float64 formula, and the speed of the machine."""
