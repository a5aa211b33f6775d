"""Stage picking: particle coordinates."""
