"""The command line: ``cryopipe doctor``, ``cryopipe check``, ``cryopipe params``."""

from cryopipe.cli.main import main

__all__ = ["main"]
