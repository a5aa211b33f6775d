"""Stage ctf: contrast transfer functions that can be trusted."""
