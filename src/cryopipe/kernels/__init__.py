"""The inner loops: arrays in, arrays out; NumPy arrays run on the CPU (Numba), CuPy arrays on the GPU (CUDA).

Each kernel is one public module here, ``cpu/<kernel>.py`` and ``cuda/<kernel>.cu`` (launched by ``cuda/<kernel>.py``).
The slow, obviously right float64 form of each lives in ``tests/kernels/reference``.
"""
