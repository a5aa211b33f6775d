"""Gain references and defects."""
