"""Stage classes2d: class averages and the particles worth keeping."""
