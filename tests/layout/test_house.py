"""The house keeps within its limits, and the tool that counts them sees what passes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools import house

Write = Callable[..., None]
LONG_CALL = "".join(f"    value_{i} = first({i}, 1)\n" for i in range(house.REPEATED_LINES))


@pytest.mark.parametrize("limit", house.LIMITS)
def test_the_project_keeps_within_its_limits(limit: str) -> None:
    count = house.LIMITS[limit]()
    assert count.kept, "\n".join([f"{count.found:g} {count.unit}, at most {count.limit:g}", *count.offenders])


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files of an empty project that the tool takes for ours."""
    monkeypatch.setattr(house, "ROOT", tmp_path)
    monkeypatch.setattr(house, "PACKAGE", tmp_path / "src" / "cryopipe")

    def files(**texts: str) -> None:
        for name, text in texts.items():
            *folders, stem, ending = name.split("__")
            path = tmp_path.joinpath(*folders, f"{stem}.{ending}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        house.text_of.cache_clear()
        house.tree_of.cache_clear()

    return files


def test_the_sixteenth_module_of_a_folder_is_one_too_many(write: Write) -> None:
    write(**{f"src__cryopipe__io__m{i}__py": "" for i in range(15)}, src__cryopipe__io__m0__cu="")
    assert house.folders().kept
    write(src__cryopipe__io__m15__py="")
    assert house.folders().offenders == ["src/cryopipe/io: 16 modules"]


def test_modules_and_functions_are_long_by_their_lines_without_docstring(write: Write) -> None:
    body = "    x = 1\n" * 59
    write(src__cryopipe__a__py=f'def f():\n    """One.\n\n    Two.\n    """\n{body}')
    assert house.long_functions().kept
    write(src__cryopipe__c__py="def g():\n" + "    x = 1\n" * 300)
    assert house.long_functions().offenders == ["src/cryopipe/c.py:1 g: 301 lines"]
    assert house.long_modules().offenders == ["src/cryopipe/c.py: 301 lines"]


def test_a_rule_ends_where_the_next_begins(write: Write) -> None:
    rule = "    rule {}:\n        output:\n{}\n\n"
    text = (
        rule.format("short", '            "a",') + rule.format("long", "\n".join(['            "b",'] * 20)) + "else:\n"
    )
    write(workflow__rules__a__smk=f"if x:\n\n{text}    y = 1\n")
    count = house.rules()
    assert count.found == (3 + 22) / 2
    assert count.offenders == ["rule long: 22 lines"]


def test_a_public_function_of_four_arguments_needs_a_parameters_section(write: Write) -> None:
    section = '    """Do it.\n\n    Parameters\n    ----------\n    a : int\n        One.\n    """\n'
    write(
        src__cryopipe__a__py=f"def good(a, b, *, c, d):\n{section}\n"
        'def bad(a, b, *, c, d):\n    """Parameters: none."""\n    def nested(a, b, c, d): ...\n'
        "def three(a, b, c): ...\n"
        "def _private(a, b, c, d): ...\n"
        "def main(inputs, outputs, params, context): ...\n"
        "class C:\n    def main(self, inputs, outputs, params, context): ...\n"
        "    def three(self, a, b, c): ...\n    def four(self, a, b, *c, d): ...\n"
    )
    found = [offender.split()[1] for offender in house.undocumented_parameters().offenders]
    assert found == ["bad:", "C.main:", "C.four:"]


def test_a_number_needs_a_comment_above_its_group_beside_or_below_it(write: Write) -> None:
    write(
        src__cryopipe__a__py="#: Measured.\n_A = 1.5\n_B, _C = 2, -3\n\n_D = 4  # bytes\n_E = 5\n'''Five.'''\n_F = 'text'\n"
        "\n_G = 2 * 3.0\n_H: int = 1 << 10\n"
    )
    assert [offender.split()[1] for offender in house.bare_constants().offenders] == ["_G", "_H"]


def test_a_repeat_is_found_across_comments_and_brackets_and_once(write: Write) -> None:
    other = LONG_CALL.replace("    value_3", "\n    # a remark\n    value_3").replace("first(4, 1)", "first(4,  1)")
    write(src__cryopipe__a__py=f"def f():\n{LONG_CALL}    a = 1\n", benchmarks__b__py=f"if x:\n{other}    b = 1\n")
    assert house.repeats().offenders == ["benchmarks/b.py:2 ~ src/cryopipe/a.py:2: 6 lines"]
    write(benchmarks__b__py="if x:\n" + other.replace("value_5", "value_6"))
    assert house.repeats().kept


def test_docstrings_and_imports_repeat_nothing(write: Write) -> None:
    text = '"""One.\n' + "Line of text.\n" * 9 + '"""\n' + "".join(f"import m{i}\n" for i in range(9))
    write(src__cryopipe__a__py=text, src__cryopipe__b__py=text)
    assert house.repeats().kept


def test_a_folder_of_tests_mirrors_a_folder_of_the_package(write: Write) -> None:
    write(src__cryopipe__io__star__py="", src__cryopipe__cli__py="", tests__layout__test_a__py="")
    write(
        tests__io__test_star__py="", tests__cli__test_cli__py="", tests__io__data__scene__py="", tests__test_cli__py=""
    )
    assert house.test_folders().kept
    write(tests__files__test_star__py="", tests__test_all__py="")
    assert house.test_folders().offenders == ["tests/files", "tests/test_all.py"]
