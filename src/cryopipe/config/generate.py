"""What the parameter models generate: JSON schema, commented default configuration, parameter page, tables of steps."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cryopipe.config.model import Config
from cryopipe.config.step_tables import TABLES, with_tables

ROOT = Path(__file__).parents[3]


def schema() -> str:
    """Return the JSON schema of a configuration: editors complete keys and explain them from it."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def default_yaml() -> str:
    """Return a commented YAML with every key and its default."""
    head = [
        "# yaml-language-server: $schema=config.schema.json",
        "# Every parameter with its default. Generated (python -m cryopipe.config.generate --fix): do not edit, copy from it.",
        "# null means: derived from the facts of the dataset (the formula is in the comment) or switched off.",
    ]
    return "\n".join([*head, *_yaml_lines(Config, 0)]) + "\n"


def parameter_page() -> str:
    """Return the parameter page of the documentation, Markdown, one table a step."""
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
        steps = [(name, _model_of(field)) for name, field in model.model_fields.items()]
        if any(inner is None for _, inner in steps):
            lines += _table(model)
            continue
        for name, inner in steps:
            if inner is not None:
                lines += [f"### {name}", "", _doc(inner), "", *_table(inner)]
    return "\n".join(lines)


#: ``{path below the repository: its generator}``
GENERATED = {
    "config/config.schema.json": schema,
    "config/config.default.yaml": default_yaml,
    "docs/parameters.md": parameter_page,
}


def drifted(root: Path = ROOT) -> list[str]:
    """Return the generated files that no longer say what the models say."""
    return [
        name for name, text in _made(root).items() if not (root / name).exists() or (root / name).read_text() != text
    ]


def fix(root: Path = ROOT) -> None:
    """Write all generated files, and the generated tables of the files below ``root`` that hold some."""
    for name, text in _made(root).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _made(root: Path) -> dict[str, str]:
    """Return ``{path below the repository: its text}`` as it should be."""
    holding = [name for name in TABLES if (root / name).exists()]
    return {name: generate() for name, generate in GENERATED.items()} | {
        name: with_tables(name, (root / name).read_text()) for name in holding
    }


def main() -> int:
    """Compare the generated files with the models; ``--fix`` writes them."""
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
        return None  # a list of models is a value, no section
    for option in (info.annotation, *getattr(info.annotation, "__args__", ())):
        if inspect.isclass(option) and issubclass(option, BaseModel):
            return option
    return None


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
    literal = [repr(v) for v in getattr(info.annotation, "__args__", ()) if isinstance(v, str)]
    return " | ".join(literal) if literal else ", ".join(parts)


def _comment(info: FieldInfo) -> str:
    unit, derived, limits = _extra(info, "unit"), _extra(info, "derived"), _limits(info)
    notes = [f"[{unit}]" if unit else "", f"({limits})" if limits else "", f"derived: {derived}" if derived else ""]
    return " ".join([info.description or "", *(note for note in notes if note)])


def _yaml_lines(model: type[BaseModel], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, info in model.model_fields.items():
        inner = _model_of(info)
        text = _doc(inner) if inner is not None else _comment(info)
        if depth == 0:
            yield ""
        yield from textwrap.wrap(text, 118 - 2 * depth, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")
        if inner is None:
            flow = yaml.safe_dump(_plain(_default(info)), default_flow_style=True, width=10_000, allow_unicode=True)
            yield f"{pad}{name}: {flow.splitlines()[0]}"
        elif name == "simulation":
            # a default file with a simulation beside a dataset would be ambiguous: shown, but commented out
            yield f"{pad}{name}: null"
            yield from (f"# {line}" if line.strip() else line for line in _yaml_lines(inner, depth + 1))
        else:
            yield f"{pad}{name}:"
            yield from _yaml_lines(inner, depth + 1)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _table(model: type[BaseModel]) -> list[str]:
    rows = ["| parameter | default | unit | limits | meaning |", "|---|---|---|---|---|"]
    for name, info in model.model_fields.items():
        derived = _extra(info, "derived")
        default = (
            f"derived: {derived}" if derived else f"`{json.dumps(_default(info), ensure_ascii=False, default=str)}`"
        )
        cells = [f"`{name}`", default, _extra(info, "unit"), _limits(info), info.description or ""]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


if __name__ == "__main__":
    sys.exit(main())
