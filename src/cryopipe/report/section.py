"""What a section of the report is: which files of the run it reads, what it makes of them, and its template.

A section is one module of `cryopipe.report.sections` and one template of the same name. It names ports, and never single
branches of a fan-in: a new picker or CTF estimator is counted, cited and shown without a new line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a section makes of the files of a run.

    Attributes
    ----------
    numbers : mapping
        Its keys of ``report.json``.
    page : mapping
        ``{anchor: what the template shows there}``; None where this run has nothing to show at that anchor.
    warnings : sequence of str
        What a person should look at before believing the map.
    headline : sequence of sequences of HeadlinePicture
        Pictures for the head of the page, side by side; those of one inner sequence one below the other.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    page: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    headline: Sequence[Sequence[HeadlinePicture]] = ()


@dataclass(frozen=True)
class HeadlinePicture:
    """A picture with the words below it; ``alt`` is the text that a screen reader reads."""

    source: str
    alt: str
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One section of the report.

    Attributes
    ----------
    name : str
        Of its module and its template ``<name>.html.j2``: the stage, or what the section is about.
    anchors : mapping
        ``{anchor: title in the navigation}``, in the order of the page.
    build : callable
        Makes the `Part` of the files of a run.
    reads : sequence of Reads
        From these the inputs of the report's rule are made.
    needs : sequence of str
        Names of ``reads``; a run that has none of these files has no such section. Empty: every run has it.
    """

    name: str
    anchors: Mapping[str, str]
    build: Callable[[RunFiles], Part]
    reads: Sequence[Reads] = ()
    needs: Sequence[str] = ()

    def is_in(self, run: RunFiles) -> bool:
        """Tell whether the steps that this section is about ran."""
        return not self.needs or any(name in run for name in self.needs)
