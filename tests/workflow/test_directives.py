"""What a run offers its jobs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cryopipe.workflow import offer_gpus


def offered(*, local: bool = True, device: str = "auto", given: dict[str, int] | None = None) -> dict[str, int]:
    resources = dict(given or {})
    workflow: Any = SimpleNamespace(
        local_exec=local, global_resources=resources, register_resource=resources.__setitem__
    )
    plan: Any = SimpleNamespace(config=SimpleNamespace(run=SimpleNamespace(device=device)))
    offer_gpus(workflow, plan)
    return resources


def test_gpus_are_offered_as_many_as_there_are_and_none_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopipe.workflow.directives.gpu_count", lambda: 3)
    assert offered() == {"gpu": 3}
    assert offered(given={"gpu": 1}) == {"gpu": 1}, "the command line decides"
    assert offered(device="cpu") == offered(local=False) == {}
    monkeypatch.setattr("cryopipe.workflow.directives.gpu_count", lambda: 0)
    assert offered() == {}, "a limit of 0 would make a job that wants a GPU a quiet CPU job"
