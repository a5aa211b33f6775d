"""The loops of a CPU search tile between its products. They release the GIL, and each call takes a range of images."""
