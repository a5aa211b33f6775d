"""The report: one self-contained HTML and the same numbers in JSON."""
