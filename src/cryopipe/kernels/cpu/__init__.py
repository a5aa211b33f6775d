"""CPU implementations (Numba, cached on disk, no GIL). They trust their caller: call the public module instead.

Numba's cache watches the file of a compiled function alone, not those it calls into: after an edit of helpers
(``cells.py``, ``pose_parts``, ``spectra/ramps.py``, ``volumes/shells.py``), touch the modules that import them, too.
"""
