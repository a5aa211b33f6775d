"""The inner loops: arrays in, arrays out. NumPy arrays run on the CPU (Numba), CuPy arrays on the GPU (CUDA).

Each kernel is one public module here, ``cpu/<kernel>.py`` and, where it runs on the GPU, ``cuda/<kernel>.cu`` (launched by
``cuda/<kernel>.py``). Kernels of one family share a folder: ``volumes/division.py`` and ``cpu/volumes/division.py``.
The slow, obviously right float64 form of each lives in ``tests/kernels/reference``.
"""
