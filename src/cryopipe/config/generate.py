"""Files generated from the parameter models: JSON schema, commented default configuration, parameter page, step tables."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cryopipe.config.declaration.base import model_in, per_batch
from cryopipe.config.declaration.declare import DECLARATIONS, BranchOf
from cryopipe.config.declaration.runs import RunParams
from cryopipe.config.declaration.tables import TABLES, with_tables
from cryopipe.config.model import Config, sections
from cryopipe.io.own_columns import column_page

ROOT = Path(__file__).parents[3]


def schema() -> str:
    """Return the JSON schema of a configuration. Editors use it to complete and explain keys."""
    made = Config.model_json_schema()
    for params in DECLARATIONS:
        for name in per_batch(params):
            del made["$defs"][params.__name__]["properties"][name]
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def default_yaml() -> str:
    """Return a commented YAML with every key and its default."""
    head = [
        "# yaml-language-server: $schema=config.schema.json",
        "# Every parameter with its default. Generated (python -m cryopipe.config.generate --fix): do not edit, copy from it.",
        "# null means: derived from the facts of the dataset (the comment has the formula), or switched off.",
    ]
    return "\n".join([*head, *_yaml_lines(Config, 0)]) + "\n"


def parameter_page() -> str:
    """Return the parameter page of the documentation in Markdown, with one table per step."""
    lines = [
        "# Parameters",
        "",
        "Generated from `src/cryopipe/config/` (`python -m cryopipe.config.generate --fix`).",
        "",
    ]
    for stage, info in Config.model_fields.items():
        model = _model_of(info)
        if model is None:
            continue
        lines += [f"## {stage}", "", _doc(model), ""]
        steps = sections().get(stage, {})
        if choices := {name: field for name, field in model.model_fields.items() if name not in steps}:
            lines += _table(choices)
        for name, params in steps.items():
            lines += [f"### {name}", "", _doc(params), "", *_runs(model.model_fields[name]), *_table(_shown(params))]
    return "\n".join(lines)


#: ``{path below the repository: its generator}``
GENERATED = {
    "config/config.schema.json": schema,
    "config/config.default.yaml": default_yaml,
    "docs/parameters.md": parameter_page,
    "docs/columns.md": column_page,
}


def drifted(root: Path = ROOT) -> list[str]:
    """Return the generated files that differ from what the models generate now."""
    return [
        name for name, text in _made(root).items() if not (root / name).exists() or (root / name).read_text() != text
    ]


def fix(root: Path = ROOT) -> None:
    """Write all generated files below ``root``, and the generated tables in other files."""
    for name, text in _made(root).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _made(root: Path) -> dict[str, str]:
    """Return ``{path below the repository: text that it should have}``."""
    holding = [name for name in TABLES if (root / name).exists()]
    return {name: generate() for name, generate in GENERATED.items()} | {
        name: with_tables(name, (root / name).read_text()) for name in holding
    }


def main() -> int:
    """Compare the generated files with the models. ``--fix`` writes them."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--fix", action="store_true", help="write the files instead of comparing")
    if arguments.parse_args().fix:
        fix()
    stale = drifted()
    if stale:
        print(f"out of date: {', '.join(stale)}; run: python -m cryopipe.config.generate --fix")
    return 1 if stale else 0


def _model_of(info: FieldInfo) -> type[BaseModel] | None:
    if get_origin(info.annotation) is list:
        return None  # a list of models is a value, not a section
    for option in (info.annotation, *getattr(info.annotation, "__args__", ())):
        if inspect.isclass(option) and issubclass(option, BaseModel):
            return option
    return None


def _shown(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields that a user may give."""
    return {name: info for name, info in model.model_fields.items() if name not in per_batch(model)}


def _is_runs(info: FieldInfo) -> bool:
    return isinstance(info.default, list) and any(isinstance(run, RunParams) for run in info.default)


def _runs(info: FieldInfo) -> list[str]:
    """Return what the parameter page states about the runs of a step that is done several times."""
    if not _is_runs(info):
        return []
    runs = [
        f"`{run.run}`" + (f" ({', '.join(f'{k}: {v}' for k, v in own.items())})" if own else "")
        for run in info.default
        for own in [run.model_dump(mode="json", exclude_unset=True, exclude={"run"})]
    ]
    said = "A block with the name of one of these runs needs only the values that differ from it."
    return [f"A list with one block per run. By default: {'; '.join(runs)}. {said}", ""]


def _doc(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())


def _extra(info: FieldInfo, key: str) -> str:
    extra = info.json_schema_extra
    return str(extra.get(key, "")) if isinstance(extra, dict) else ""


def _default(info: FieldInfo) -> Any:
    if info.default_factory is not None:
        value = info.default_factory()  # type: ignore[call-arg]
    elif info.default is PydanticUndefined:
        return None
    else:
        value = info.default
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _limits(info: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    parts = [f"{signs[key]} {getattr(m, key):g}" for m in info.metadata for key in signs if hasattr(m, key)]
    literal = [repr(value) for value in _choices(info.annotation, info.metadata)]
    return " | ".join(literal) if literal else ", ".join(parts)


def _choices(annotation: Any, metadata: Sequence[Any] = ()) -> list[str]:
    """Return the texts that a field may have: literals, and the labels of branches."""
    own = [label for mark in metadata if isinstance(mark, BranchOf) for label in mark.labels]
    own += [value for value in get_args(annotation) if isinstance(value, str)]
    inner = [arg for arg in get_args(annotation) if not isinstance(arg, str | BranchOf)]
    marks = [mark for mark in get_args(annotation) if isinstance(mark, BranchOf)]
    return own + [label for mark in marks for label in mark.labels] + [c for arg in inner for c in _choices(arg)]


def _comment(info: FieldInfo) -> str:
    unit, derived, limits = _extra(info, "unit"), _extra(info, "derived"), _limits(info)
    notes = [f"[{unit}]" if unit else "", f"({limits})" if limits else "", f"derived: {derived}" if derived else ""]
    return " ".join([info.description or "", *(note for note in notes if note)])


def _yaml_lines(model: type[BaseModel], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, info in _shown(model).items():
        inner = _model_of(info)
        text = _doc(inner or model_in(info.annotation) or model) if inner or _is_runs(info) else _comment(info)
        if depth == 0:
            yield ""
        yield from textwrap.wrap(text, 118 - 2 * depth, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")
        if _is_runs(info):
            yield f"{pad}{name}:"
            yield from _yaml_of_runs(info.default, depth + 1)
        elif inner is None:
            flow = yaml.safe_dump(_plain(_default(info)), default_flow_style=True, width=10_000, allow_unicode=True)
            yield f"{pad}{name}: {flow.splitlines()[0]}"
        elif name == "simulation":
            # with both a simulation and a dataset a configuration would be ambiguous, so this is commented out
            yield f"{pad}{name}: null"
            yield from (f"# {line}" if line.strip() else line for line in _yaml_lines(inner, depth + 1))
        else:
            yield f"{pad}{name}:"
            yield from _yaml_lines(inner, depth + 1)


def _yaml_of_runs(runs: Sequence[RunParams], depth: int) -> Iterator[str]:
    """Write the first run of a list with all parameters, and the others only with those in which they differ."""
    pad = "  " * depth
    for i, run in enumerate(runs):
        given = run.model_dump(mode="json", exclude_unset=i > 0)
        yield f"{pad}- run: {run.run}"
        for name, value in given.items():
            if name == "run":
                continue
            text = _comment(type(run).model_fields[name])
            wide = f"{pad}  # "
            if i == 0:
                yield from textwrap.wrap(text, 116 - 2 * depth, initial_indent=wide, subsequent_indent=wide)
            flow = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
            yield f"{pad}  {name}: {flow.splitlines()[0]}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _table(fields: Mapping[str, FieldInfo]) -> list[str]:
    rows = ["| parameter | default | unit | limits | meaning |", "|---|---|---|---|---|"]
    for name, info in fields.items():
        derived = _extra(info, "derived")
        default = (
            f"derived: {derived}" if derived else f"`{json.dumps(_default(info), ensure_ascii=False, default=str)}`"
        )
        cells = [f"`{name}`", default, _extra(info, "unit"), _limits(info), info.description or ""]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


if __name__ == "__main__":
    sys.exit(main())
