"""Running a step: log, device, provenance, and failures that say what to do."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep as pause
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.context import Context
from cryopipe.errors import DeviceError, InputError
from cryopipe.fingerprint import file_digest
from cryopipe.items import process_items
from cryopipe.workflow import devices
from cryopipe.workflow.devices import gpu_lease, resolve_device
from cryopipe.workflow.step import run_step
from cryopipe.workflow.terminal.job_log import TERMINAL_VARIABLE
from tests.emulated_cupy import emulated_gpus


class Doubling(Params):
    """Parameters of the step below."""

    factor: int = parameter("Factor.", default=2)


class Named(dict[str, Any]):
    """Snakemake's named lists, as far as a step sees them."""

    __getattr__ = dict.__getitem__


def step_module(body: Any) -> ModuleType:
    module = ModuleType("cryopipe.test.doubling")

    def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Doubling, context: Context) -> None:
        body(inputs, outputs, params, context)

    module.main = main  # type: ignore[attr-defined]
    return module


def job(tmp_path: Path, device: str = "cpu") -> Any:
    (tmp_path / "in.txt").write_text("21")
    return SimpleNamespace(
        log=[str(tmp_path / "logs" / "doubling.log")],
        wildcards=Named(batch="batch_0001"),
        input=Named(number=str(tmp_path / "in.txt"), absent=[]),
        output=Named(result=str(tmp_path / "out.txt")),
        params=SimpleNamespace(
            step={"factor": 3},
            run={"seed": 5, "work_dir": str(tmp_path / "work")},
            code="abc",
        ),
        config={"run": {"device": device, "max_failed_fraction": 0.1}},
        threads=1,
        resources=Named(gpu=0),
    )


def double(inputs: dict[str, Any], outputs: dict[str, Path], params: Doubling, context: Context) -> None:
    assert "absent" not in inputs
    outputs["result"].write_text(str(int(inputs["number"].read_text()) * params.factor))


def test_provenance_lies_beside_the_output_and_holds_what_made_it(tmp_path: Path) -> None:
    run_step(job(tmp_path), step_module(double))
    assert (tmp_path / "out.txt").read_text() == "63"
    record = json.loads((tmp_path / "out.txt.provenance.json").read_text())
    assert record["inputs"] == {str(tmp_path / "in.txt"): file_digest(tmp_path / "in.txt")}
    assert record["digest"] == file_digest(tmp_path / "out.txt")
    assert record["params"] == {"factor": 3}
    assert (record["seed"], record["device"], record["code"]) == (5, "cpu", "abc")
    assert record["versions"]["numpy"]


def test_an_error_of_the_user_is_one_message_on_the_terminal_and_a_traceback_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("movie_7.tif: truncated after frame 3. Copy it again.")

    with pytest.raises(SystemExit) as stop:
        run_step(job(tmp_path), step_module(fail))
    assert stop.value.code == 1
    terminal = capsys.readouterr().err
    assert "movie_7.tif: truncated after frame 3. Copy it again." in terminal
    assert "doubling.log" in terminal
    assert "Traceback" not in terminal
    assert "Traceback" in (tmp_path / "logs" / "doubling.log").read_text()


def test_a_checkpoint_is_resumed_by_the_code_that_wrote_it_and_by_no_other(tmp_path: Path) -> None:
    found = []

    def body(inputs: dict[str, Any], outputs: dict[str, Path], params: Doubling, context: Context) -> None:
        checkpoint = context.work_dir / "progress.txt"
        found.append(checkpoint.exists())
        checkpoint.write_text("half way")
        double(inputs, outputs, params, context)

    for code in ("abc", "abc", "another"):
        one = job(tmp_path)
        one.params.code = code
        run_step(one, step_module(body))
    assert found == [False, True, False]


def test_a_defect_of_the_program_fails_the_job_and_is_logged_with_its_traceback_and_its_item(tmp_path: Path) -> None:
    def fail(inputs: Any, outputs: Any, params: Doubling, context: Context) -> None:
        def work(name: str, item: int) -> dict[str, Any]:
            return {"quotient": 1 / item}

        process_items({"m1": 1, "m2": 0}, work, context, params=params, reads=lambda *_: [], makes=lambda *_: [])

    with pytest.raises(SystemExit) as stop:
        run_step(job(tmp_path), step_module(fail))
    assert stop.value.code == 1
    text = (tmp_path / "logs" / "doubling.log").read_text()
    assert "Traceback" in text
    assert "ERROR unexpected ZeroDivisionError: division by zero (at m2)" in text


def test_a_job_that_is_interrupted_says_so_in_its_log_and_nothing_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv(TERMINAL_VARIABLE, "logs")
    with pytest.raises(SystemExit):
        run_step(job(tmp_path), step_module(interrupted))
    assert capsys.readouterr().err == ""
    text = (tmp_path / "logs" / "doubling.log").read_text()
    assert "stopped by a signal" in text
    assert "ERROR" not in text


def test_a_warning_of_a_library_goes_into_the_log_of_the_job(tmp_path: Path) -> None:
    def warn(inputs: dict[str, Any], outputs: dict[str, Path], params: Doubling, context: Context) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("a mean of nothing", RuntimeWarning, stacklevel=1)
        double(inputs, outputs, params, context)

    run_step(job(tmp_path), step_module(warn))
    text = (tmp_path / "logs" / "doubling.log").read_text()
    assert re.search(r"WARNING .*RuntimeWarning: a mean of nothing", text)
    assert re.search(r"INFO doubling: done in [\d.]+ s on the cpu", text)


def test_a_step_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run_step(job(tmp_path), step_module(lambda *_: None))


def test_gpu_without_a_usable_gpu_is_an_error_and_never_a_quiet_cpu_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopipe.workflow.devices.gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match=r"classify: run\.device is gpu"):
        resolve_device("gpu", step="classify", granted_gpus=1)
    assert resolve_device("auto", step="classify", granted_gpus=1) == "cpu"
    monkeypatch.setattr("cryopipe.workflow.devices.gpu_count", lambda: 1)
    assert resolve_device("auto", step="classify", granted_gpus=1) == "gpu"
    assert resolve_device("auto", step="classify", granted_gpus=0) == "cpu"
    assert resolve_device("cpu", step="classify", granted_gpus=1) == "cpu"


def test_gpus_are_counted_once_for_a_machine_and_only_where_a_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "3\n", "")

    monkeypatch.setenv(devices.KNOWN_VARIABLE, "{}")
    monkeypatch.setattr(devices.subprocess, "run", answer)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    assert devices.gpu_count() == 0
    assert not asked
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object())
    assert [devices.gpu_count(), devices.gpu_count()] == [3, 3]
    assert len(asked) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.gpu_count() == 3
    assert len(asked) == 2
    monkeypatch.setattr(devices.platform, "node", lambda: "another")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "no driver"))
    assert devices.gpu_count() == 0


def test_a_job_holds_the_gpus_that_it_was_given_and_shares_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "gpu_count", lambda: 3)
    with emulated_gpus(3), gpu_lease("gpu", 2, tmp_path) as first, gpu_lease("gpu", 1, tmp_path) as second:
        assert (first, second) == ((0, 1), (2,))
    with emulated_gpus(3), gpu_lease("gpu", 3, tmp_path) as again:
        assert again == (0, 1, 2)
    with gpu_lease("cpu", 1, tmp_path) as none:
        assert none == ()


def test_a_job_waits_for_gpus_and_holds_none_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    with emulated_gpus(2), ThreadPoolExecutor(1) as pool:
        waiting = threading.Event()

        def tired(_: float) -> None:
            waiting.set()
            pause(0.01)

        monkeypatch.setattr("cryopipe.workflow.devices.time.sleep", tired)

        def both() -> tuple[int, ...]:
            with gpu_lease("gpu", 2, tmp_path) as gpus:
                return gpus

        with gpu_lease("gpu", 1, tmp_path):
            later = pool.submit(both)
            assert waiting.wait(300)
            with gpu_lease("gpu", 1, tmp_path) as other:
                assert other == (1,)
            assert not later.done()
        assert later.result(timeout=300) == (0, 1)


def test_gpus_that_somebody_chose_are_all_the_jobs_and_are_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    with emulated_gpus(2), gpu_lease("gpu", 1, tmp_path) as gpus:
        assert gpus == (0, 1)
    assert list(tmp_path.iterdir()) == []


def test_more_gpus_than_the_machine_has_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    with (
        emulated_gpus(2),
        pytest.raises(DeviceError, match="was given 4 GPUs, but this machine has 2"),
        gpu_lease("gpu", 4, tmp_path),
    ):
        pass


def test_seeds_depend_on_seed_step_and_item_alone(tmp_path: Path) -> None:
    context = Context(step="a", work_dir=tmp_path, seed=1)
    assert context.item_seed("x") == Context(step="a", work_dir=tmp_path / "other", seed=1, threads=7).item_seed("x")
    seeds = {
        Context(step=step, work_dir=tmp_path, seed=seed).item_seed(item)
        for step in "ab" for seed in (1, 2) for item in "xy"
    }  # fmt: skip
    assert len(seeds) == 8


@pytest.fixture(autouse=True)
def _close_logs() -> Any:
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("cryopipe.doubling"):
            for handler in logging.getLogger(name).handlers:
                handler.close()
    sys.modules.pop("cryopipe.test.doubling", None)
