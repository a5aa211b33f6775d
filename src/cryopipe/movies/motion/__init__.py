"""Motion of frames: global, local, and what the averages weigh."""
