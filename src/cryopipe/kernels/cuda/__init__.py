"""CUDA implementations (CuPy RawModule). They trust their caller: call the public module instead."""
