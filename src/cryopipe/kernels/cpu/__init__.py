"""CPU implementations (Numba, cached on disk, no GIL). They trust their caller: call the public module instead.

Numba's cache checks only the file of a compiled function, not the files of the functions it calls. After an edit of such
functions (``cells.py``, ``pose_parts``, ``spectra/ramps.py``, ``volumes/shells.py``), also touch the modules that import them.
"""
