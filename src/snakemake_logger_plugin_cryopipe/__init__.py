"""The name by which Snakemake finds ``--logger cryopipe``; what it does is in `cryopipe.workflow.terminal`."""

from cryopipe.workflow.terminal.handler import LogHandler

__all__ = ["LogHandler"]
