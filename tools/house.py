"""Count the limits that keep the project easy to read, print a table, and exit with 1 if one of them is exceeded.

    .venv/bin/python tools/house.py [--all]      # --all also lists what is within the limits

Everything is counted from the text of the files alone. "Modules" are Python files outside ``tests`` except ``__init__.py``.
The lines of a function are those from its ``def`` to its end, without its docstring.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cryopipe"
#: Folders of code that is not a test.
CODE = ("src", "workflow", "benchmarks", "tools")
#: Folders of tests that do not mirror a folder of the package: rules about the project as a whole.
TESTS_OF_THE_PROJECT = {"layout"}
#: The fixed entry point of a step. `docs/architecture.md` describes its arguments once, for all steps.
ENTRY_POINT = ("main", ["inputs", "outputs", "params", "context"])
#: This many equal lines in a row are a repeat. Lines without information do not count (`telling_lines`).
REPEATED_LINES = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Count:
    """The result for one limit: the number found, the largest allowed one, and the offenders, the worst first."""

    found: float
    limit: float
    unit: str = ""
    offenders: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the number is within the limit."""
        return self.found <= self.limit


@cache
def text_of(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(text_of(path), filename=str(path))


def name_of(path: Path) -> str:
    """Return the text of a path in the table."""
    return str(path.relative_to(ROOT))


def files(*endings: str, folders: tuple[str, ...] = CODE) -> list[Path]:
    """Return the files of the project outside tests that have one of the endings."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in endings)
    return sorted(path for path in found if "__pycache__" not in path.parts and ".snakemake" not in path.parts)


def modules() -> list[Path]:
    """Return the Python files outside tests, without those that only mark a package."""
    return [path for path in files(".py") if path.name != "__init__.py"]


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Yield every function and method with its full name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield prefix + child.name, child
            inner = f"{prefix}{child.name}." if isinstance(child, Function | ast.ClassDef) else prefix
            yield from walk(child, inner)

    yield from walk(tree, "")


def docstring_lines(node: ast.AST) -> range:
    """Return the lines of the docstring of a node, or an empty range if it has none."""
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return range(0)
    value = body[0].value
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return range(body[0].lineno, (body[0].end_lineno or 0) + 1) if is_text else range(0)


def folders() -> Count:
    """Count the modules of each folder. A kernel's ``.cu`` beside the ``.py`` of the same name is one module."""
    names: dict[Path, set[str]] = defaultdict(set)
    for path in [*modules(), *files(".smk", ".cu"), *sorted((ROOT / "tests").rglob("test_*.py"))]:
        names[path.parent].add(path.stem)
    largest = sorted(((folder, len(found)) for folder, found in names.items()), key=lambda item: -item[1])
    over = [f"{name_of(folder)}: {size} modules" for folder, size in largest if size > 15]
    return Count(largest[0][1], 15, offenders=over)


def long_modules() -> Count:
    """Count the modules of more than 300 lines."""
    sizes = {path: text_of(path).count("\n") for path in modules()}
    over = sorted((path for path in sizes if sizes[path] > 300), key=lambda path: -sizes[path])
    return Count(100 * len(over) / len(sizes), 3, "%", [f"{name_of(path)}: {sizes[path]} lines" for path in over])


def long_functions() -> Count:
    """Count the functions of more than 60 lines."""
    sizes = {}
    for path in modules():
        for name, node in functions(tree_of(path)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - len(docstring_lines(node))
            sizes[f"{name_of(path)}:{node.lineno} {name}"] = lines
    over = sorted((name for name in sizes if sizes[name] > 60), key=lambda name: -sizes[name])
    return Count(100 * len(over) / len(sizes), 1, "%", [f"{name}: {sizes[name]} lines" for name in over])


def rules() -> Count:
    """Count the lines of the rules, from ``rule`` to the last line that belongs to it."""
    sizes = {}
    for path in files(".smk"):
        lines = text_of(path).splitlines()
        for first, line in enumerate(lines):
            start = re.match(r"(\s*)rule (\w+):$", line)
            if not start:
                continue
            inside = first
            for number in range(first + 1, len(lines)):
                bare = lines[number].strip()
                if bare and not lines[number].startswith(start[1] + " "):
                    break
                inside = number if bare else inside
            sizes[start[2]] = inside - first + 1
    over = sorted((name for name in sizes if sizes[name] > 14), key=lambda name: -sizes[name])
    return Count(statistics.median(sizes.values()), 14, "lines", [f"rule {name}: {sizes[name]} lines" for name in over])


def undocumented_parameters() -> Count:
    """Count the public functions and methods of four or more arguments without a Parameters section.

    Entry points of steps are left out: their four arguments mean the same in every step, and their docstrings name the
    files that they read and write.
    """
    found = []
    for path in modules():
        if not path.is_relative_to(PACKAGE):
            continue
        every = list(functions(tree_of(path)))
        nested = {f"{outer}." for outer, _ in every}
        for name, node in every:
            decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
            hidden = any(part.startswith("_") for part in name.split(".")) or "overload" in decorators
            if hidden or any(name.startswith(outer) for outer in nested):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg]
            named = [a.arg for a in arguments if a is not None and a.arg not in {"self", "cls"}]
            if (name, named) == ENTRY_POINT:
                continue
            if len(named) >= 4 and not re.search(r"^Parameters\n-+$", ast.get_docstring(node) or "", re.MULTILINE):
                found.append(f"{name_of(path)}:{node.lineno} {name}: {len(named)} arguments")
    return Count(len(found), 0, offenders=found)


def bare_constants() -> Count:
    """Count the numeric constants of modules without a comment or docstring that explains them.

    A comment above a group of constants without empty lines between them is for the whole group.
    """
    found = []
    for path in modules():
        if not path.is_relative_to(PACKAGE):
            continue
        body, lines = tree_of(path).body, text_of(path).splitlines()
        for place, node in enumerate(body):
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            value = getattr(node, "value", None)
            if not isinstance(target, ast.Name | ast.Tuple) or value is None or not _is_numeric(value):
                continue
            after = body[place + 1] if place + 1 < len(body) else None
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            above = node.lineno - 1
            while above > 0 and lines[above - 1].strip() and not lines[above - 1].startswith("#"):
                above -= 1
            commented = "#" in lines[(node.end_lineno or node.lineno) - 1] or (
                above > 0 and lines[above - 1].startswith("#")
            )
            if not (described or commented):
                found.append(f"{name_of(path)}:{node.lineno} {ast.unparse(target)}")
    return Count(len(found), 0, offenders=found)


def _is_numeric(value: ast.expr) -> bool:
    """Tell whether an expression consists only of numbers."""
    allowed = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop, ast.Load)
    constants = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
    only_numbers = all(isinstance(c, int | float | complex) and not isinstance(c, bool) for c in constants)
    return bool(constants) and only_numbers and all(isinstance(node, allowed) for node in ast.walk(value))


def telling_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines (number, normalised text) of a file that can be part of a repeat.

    Imports, docstrings, comments, empty lines and lines that close a bracket are left out.
    """
    skipped: set[int] = set()
    if path.suffix == ".py":
        for node in ast.walk(tree_of(path)):
            skipped.update(docstring_lines(node))
            if isinstance(node, ast.Import | ast.ImportFrom):
                skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    comment = r"\s*(//.*)?$" if path.suffix in {".cu", ".cuh"} else r"\s*(#.*)?$"
    result = []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        bare = re.sub(r"\s+", " ", re.sub(comment, "", line) if '"' not in line else line).strip().rstrip(",")
        if bare and number not in skipped and bare[0] not in ")]}":
            result.append((number, bare))
    return result


def repeats() -> Count:
    """Count the pairs of places with six or more equal lines in a row. Overlapping runs are one place."""
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    lines = {path: telling_lines(path) for path in files(".py", ".smk", ".cu", ".cuh")}
    for path, telling in lines.items():
        for first in range(len(telling) - REPEATED_LINES + 1):
            run = tuple(text for _, text in telling[first : first + REPEATED_LINES])
            places[run].append((path, first))
    pairs: dict[tuple[Path, Path, int], list[int]] = defaultdict(list)
    for where in places.values():
        for i, (path, first) in enumerate(where):
            for other, second in where[i + 1 :]:
                if path != other or second - first >= REPEATED_LINES:
                    pairs[path, other, second - first].append(first)
    found = []
    for (path, other, apart), starts in sorted(pairs.items()):
        a, b = lines[path][min(starts)][0], lines[other][min(starts) + apart][0]
        found.append(f"{name_of(path)}:{a} ~ {name_of(other)}:{b}: {len(starts) + REPEATED_LINES - 1} lines")
    return Count(len(found), 0, offenders=found)


def test_folders() -> Count:
    """Count folders of tests, and files beside them, that do not mirror the package (the rule is in CONTRIBUTING.md)."""
    tests = ROOT / "tests"
    holding = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")} - {Path()}
    strangers = [
        f"tests/{folder}"
        for folder in sorted(holding)
        if str(folder) not in TESTS_OF_THE_PROJECT
        and not ((PACKAGE / folder).is_dir() or (PACKAGE / f"{folder}.py").is_file())
    ]
    for path in sorted(tests.glob("test_*.py")):
        if not (PACKAGE / path.name.removeprefix("test_")).is_file():
            strangers.append(f"tests/{path.name}")
    return Count(len(strangers), 0, offenders=strangers)


LIMITS: dict[str, Callable[[], Count]] = {
    "modules in the largest folder": folders,
    "modules over 300 lines": long_modules,
    "functions over 60 lines": long_functions,
    "median length of a rule": rules,
    "public functions of 4+ arguments without Parameters": undocumented_parameters,
    "numeric constants without their origin": bare_constants,
    f"repeats of {REPEATED_LINES} lines": repeats,
    "folders of tests that mirror nothing": test_folders,
}


def main(arguments: list[str]) -> int:
    """Print the table. Return 1 if a limit is exceeded."""
    counts = {name: count() for name, count in LIMITS.items()}
    for name, count in counts.items():
        verdict = "ok" if count.kept else "PASSED"
        print(f"{name:<52} {count.found:>7.4g} {count.unit:<5} at most {count.limit:>3g}  {verdict}")
    for name, count in counts.items():
        if count.offenders and (not count.kept or "--all" in arguments):
            print(f"\n{name}:", *count.offenders, sep="\n  ")
    return 0 if all(count.kept for count in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
