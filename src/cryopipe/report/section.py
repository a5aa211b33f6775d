"""What a section of the report is: the files of the run that it reads, the content that it makes of them, and its template.

A section is one module of `cryopipe.report.sections` and one template of the same name. It names ports, and never single
branches of a fan-in. So a new picker or CTF estimator is counted, cited and shown without a new line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles


@dataclass(frozen=True, kw_only=True)
class Part:
    """The content of a section.

    Attributes
    ----------
    numbers : mapping
        Its keys in ``report.json``.
    page : mapping
        ``{anchor: what the template shows there}``. It is None if this run has nothing to show at that anchor.
    warnings : sequence of str
        What a user should check before trusting the map.
    headline : sequence of sequences of HeadlinePicture
        Pictures for the head of the page. Inner sequences are side by side, their pictures one below the other.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    page: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    headline: Sequence[Sequence[HeadlinePicture]] = ()


@dataclass(frozen=True)
class HeadlinePicture:
    """A picture with the words below it. ``alt`` is the text for screen readers."""

    source: str
    alt: str
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One section of the report.

    Attributes
    ----------
    name : str
        Name of its module and of its template ``<name>.html.j2``: the stage, or the topic of the section.
    anchors : mapping
        ``{anchor: title in the navigation}``, in the order of the page.
    build : callable
        Makes the `Part` from the files of a run.
    reads : sequence of Reads
        Files that it reads. The inputs of the rule ``report`` are made from them.
    needs : sequence of str
        Names of ``reads``. A run without any of these files does not have this section. Empty: every run has it.
    """

    name: str
    anchors: Mapping[str, str]
    build: Callable[[RunFiles], Part]
    reads: Sequence[Reads] = ()
    needs: Sequence[str] = ()

    def is_in(self, run: RunFiles) -> bool:
        """Tell whether the steps of this section ran."""
        return not self.needs or any(name in run for name in self.needs)
