"""The inner loops: arrays in, arrays out. NumPy arrays run on the CPU (Numba), CuPy arrays on the GPU (CUDA).

Each kernel has one public module here and ``cpu/<kernel>.py``. If it runs on the GPU, it also has ``cuda/<kernel>.cu``
(launched by ``cuda/<kernel>.py``). Kernels of one family share a folder: ``volumes/division.py`` and
``cpu/volumes/division.py``. A slow and simple float64 form of each kernel is in ``tests/kernels/reference``.
"""
