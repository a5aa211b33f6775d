"""Hand-overs by name: which step of this run makes what a later stage reads, and in which file.

A step declares the ports that it makes (``makes`` of its `cryopipe.config.declaration.declare.Declaration`). Several steps may
make one port: all pickers make ``coordinates``, and `import_micrographs` makes ``micrographs`` if there are no movies. The
last of them that runs, in the order of the data flow, supplies the port. Of branches that run side by side only the one whose
result goes on supplies it. Rules ask here and never write the path of another stage.

A run of a step that is done several times is called ``<step>/<run>``. Its results are in ``<stage>/<step>/<run>/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cryopipe.config.declaration.base import Params
from cryopipe.config.declaration.runs import RunParams
from cryopipe.errors import ConfigError
from cryopipe.steps import step_of, steps

InputFunction = Callable[[Any], Any]


class Ports:
    """Steps of a run, and the files that they hand over.

    Parameters
    ----------
    params : mapping
        ``{step or step/run: parameters}`` of all steps of the configuration, in the order of the data flow.
    fan_ins : mapping
        ``{fan-in: (labels of the branches that run, label of the one whose result goes on)}``.
    holds : mapping
        ``{condition: whether it is true for this run}`` (`cryopipe.config.declaration.declare.Condition`).
    batches : callable
        Returns the names of the batches.

    Raises
    ------
    ConfigError
        A step asks for the result of an unknown step, or several steps ask for one another in a circle.
    """

    def __init__(
        self,
        params: Mapping[str, Params],
        fan_ins: Mapping[str, tuple[Sequence[str], str]],
        holds: Mapping[str, bool],
        batches: Callable[[], Sequence[str]],
    ) -> None:
        self._params = params
        self._batches = batches
        self._goes_on = {fan_in: chosen for fan_in, (_, chosen) in fan_ins.items()}
        possible = [name for name in params if holds[step_of(name).when]]
        run = {
            name
            for name in possible
            if not (fan_in := step_of(name).branch_of) or step_of(name).label in fan_ins.get(fan_in, ((), ""))[0]
        }
        waiting = sorted(run)
        while waiting:
            new = {asked for asked in self._asked(waiting.pop()) if asked not in run}
            run |= new
            waiting += sorted(new)
        for name in sorted(run - set(possible)):
            raise ConfigError(
                f"{name} is asked for, but this run does not do it, because its data have no input for it. "
                "Ask for another step."
            )
        #: Steps of this run (a step that is done several times: its runs), in the order of the data flow.
        self.names = [name for name in possible if name in run]
        self._refuse_circles()

    def __getitem__(self, port: str) -> str:
        """Return the path of the file of a port, with ``{batch}`` if there is one for each batch.

        If no step of this run makes the port, the path is one that no rule makes.
        """
        makers = self._makers(port)
        return self._path(makers[-1], port) if makers else f"nothing in this run makes {port}"

    def get(self, port: str) -> str | list[str]:
        """Return the path of a port that need not exist: an empty list if no step of this run makes it."""
        return self[port] if self._makers(port) else []

    def all(self, port: str) -> list[str]:
        """Return the paths of a port's files of all batches: an empty list if no step of this run makes it."""
        return self._in_all_batches(self[port]) if self._makers(port) else []

    def maker(self, port: str) -> str | None:
        """Return the step of this run that supplies ``port``, or None."""
        makers = self._makers(port)
        return makers[-1] if makers else None

    def branches(self, step: str, run: str = "") -> list[str]:
        """Return the steps whose results ``step`` compares or joins, in its own order: branches, then what it starts from.

        Parameters
        ----------
        step : str
            A step that joins a fan-in, or the name of a fan-in for all its branches in this run.
        run : str
            Run of the step, if it is done several times.

        Raises
        ------
        ConfigError
            There is nothing to compare.
        """
        if step not in steps():
            found = [name for name in self.names if step_of(name).branch_of == step]
        else:
            name = f"{step}/{run}" if run else step
            asked = self._asked(name)
            fan_in = step_of(step).joins
            found = asked or [other for other in self.names if fan_in and step_of(other).branch_of == fan_in]
        if not found:
            raise ConfigError(f"{step}: none of its branches runs. Name one in the section of its stage.")
        return found

    def joined(self, step: str, file: str) -> InputFunction:
        """Return the input function of the files ``file`` of the branches of ``step``, for the run and batch of a job."""

        def paths(wildcards: Any) -> list[str]:
            names = self.branches(step, wildcards.get("run", ""))
            return [_filled(self._file(name, file), wildcards) for name in names]

        return paths

    def asked(self, step: str, file: str) -> str | list[str]:
        """Return the path of ``file`` of the one step that ``step`` asks for: an empty list if it asks for none."""
        found = self._asked(step) if step in self._params else []
        return self._file(found[0], file) if found else []

    def start(self, step: str, port: str, *, otherwise: str) -> InputFunction:
        """Return the input function of what a run of ``step`` starts from.

        Parameters
        ----------
        step : str
            A step that may be done several times.
        port : str
            Port of the run or step that it starts from.
        otherwise : str
            Port that is read by a run whose start_from is null.
        """

        def path(wildcards: Any) -> str:
            start = self._start(f"{step}/{wildcards.run}")
            if start is not None and port not in step_of(start).makes:
                raise ConfigError(
                    f"{step}, run {wildcards.run}: start_from is {start}, which does not make {port}. Name a step that does."
                )
            return _filled(self[otherwise] if start is None else self._path(start, port), wildcards)

        return path

    def files(self, names: Sequence[str], file: str) -> list[str]:
        """Return the files ``file`` of the steps ``names``, of all batches."""
        return [path for name in names for path in self._in_all_batches(self._file(name, file))]

    def rejected(self) -> list[str]:
        """Return the lists of items that were not passed on, of all batched steps of this run."""
        counting = [name for name in self.names if step_of(name).batched and step_of(name).counts]
        return self.files(counting, "rejected.tsv")

    def _makers(self, port: str) -> list[str]:
        if not any(port in step.makes for step in steps().values()):
            raise ConfigError(f"no step makes the port {port!r}. Declare it in cryopipe.config (makes).")
        return [name for name in self.names if port in step_of(name).makes and self._result_goes_on(name)]

    def _result_goes_on(self, name: str) -> bool:
        step = step_of(name)
        return self._goes_on.get(step.branch_of, step.label) == step.label

    def _path(self, name: str, port: str) -> str:
        return self._file(name, step_of(name).makes[port])

    def _file(self, name: str, file: str) -> str:
        return f"{step_of(name).stage}/{name}/{'{batch}_' if step_of(name).batched else ''}{file}"

    def _in_all_batches(self, path: str) -> list[str]:
        return [path.format(batch=batch) for batch in self._batches()] if "{batch}" in path else [path]

    def _asked(self, name: str) -> list[str]:
        start = self._start(name)
        asked = [*self._params[name].asks_for(), *([start] if start is not None else [])]
        for other in asked:
            if other not in self._params:
                known = ", ".join(self._params)
                raise ConfigError(
                    f"{name} asks for the result of {other}, which is not a step of this run. Steps: {known}."
                )
        return asked

    def _start(self, name: str) -> str | None:
        """Return the step, or run, that ``name`` starts from."""
        params = self._params.get(name)
        if not isinstance(params, RunParams) or params.start_from is None:
            return None
        own = f"{name.split('/')[0]}/{params.start_from}"
        return own if own in self._params else params.start_from

    def _refuse_circles(self) -> None:
        done: set[str] = set()

        def walk(name: str, path: tuple[str, ...]) -> Iterator[str]:
            if name in path:
                circle = " <- ".join([*path[path.index(name) :], name])
                raise ConfigError(f"these steps wait for one another: {circle}. Change start_from of one of them.")
            if name not in done:
                for asked in self._asked(name):
                    yield from walk(asked, (*path, name))
                done.add(name)
                yield name

        for name in self.names:
            list(walk(name, ()))


def _filled(path: str, wildcards: Any) -> str:
    return path.format(batch=wildcards.batch) if "{batch}" in path else path
