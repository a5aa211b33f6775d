"""A self-test of about a minute: it compares every kernel with its float64 formula and measures the machine's speed."""
