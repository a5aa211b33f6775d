"""The inner loops: arrays in, arrays out. NumPy arrays run on the CPU (Numba), CuPy arrays on the GPU (CUDA).

Each kernel has one public module here, ``cpu/<kernel>.py``, and ``cuda/<kernel>.cu`` (launched by ``cuda/<kernel>.py``).
A slow and simple float64 form of each kernel is in ``tests/kernels/reference``.
"""
