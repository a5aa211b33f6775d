"""The loops of the searches on the CPU, between their matrix products."""
