"""Every column of ours that a module writes is declared with a meaning, and every declared one is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryopipe.io.own_columns import OWN_COLUMNS, own_column
from cryopipe.io.star_columns import column_type

SOURCE = Path(__file__).parents[2] / "src" / "cryopipe"
TEXTS = {path: path.read_text() for path in SOURCE.rglob("*.py") if path.name != "own_columns.py"}
WORDS = sorted({word for text in TEXTS.values() for word in re.findall(r"\bcrp[A-Z]\w+", text)})


@pytest.mark.parametrize("word", WORDS)
def test_a_column_that_a_module_names_is_declared(word: str) -> None:
    # names that are put together from parts appear in the source as their first part
    begins = any(re.match(re.escape(word) + "[A-Z<]", column.name) for column in OWN_COLUMNS)
    files = [str(path.relative_to(SOURCE)) for path, text in TEXTS.items() if word in text]
    assert own_column(word) or begins, f"declare {word} of {', '.join(files)} in cryopipe.io.own_columns"


@pytest.mark.parametrize("name", [column.name for column in OWN_COLUMNS])
def test_a_declared_column_is_named_by_some_module(name: str) -> None:
    cuts = [i for i in range(4, len(name)) if name[i].isupper() or name[i] == "<"]
    # the whole name, or two parts of it that a module puts together; validate_truth makes its names of the curves'
    parts = [(name, ""), *((name[:i], re.sub(r"<\w+>", "", name[i:])) for i in cuts)]
    named = any(_appears(first) and (not rest or _appears(rest)) for first, rest in parts)
    assert named or name.startswith("crpFsc<"), f"no module writes {name}: remove it from cryopipe.io.own_columns"


def _appears(word: str) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", text) for text in TEXTS.values())


def test_meanings_are_sentences_and_names_are_unique() -> None:
    names = [column.name for column in OWN_COLUMNS]
    assert len(names) == len(set(names))
    wrong = [column.name for column in OWN_COLUMNS if not re.match(r"[\w(].*\w.*\.$", column.meaning)]
    assert not wrong


def test_the_column_of_a_new_estimator_is_explained_without_a_new_line() -> None:
    column = own_column("crpCtfNewestimatorDefocusU")
    assert column is not None
    assert (column.type, column.unit) == ("float", "Å")
    assert own_column("crpCtfConsensusDefocusU").meaning.startswith("Larger defocus of the mean")  # type: ignore[union-attr]
    assert own_column("crpCtfAgreementCtffindGctf").unit == "Å"  # type: ignore[union-attr]
    assert own_column("crpNeverHeardOf") is None


def test_a_declared_type_is_the_contract_of_the_table() -> None:
    assert column_type("crpItem") == "text"
    assert column_type("crpKept") == "int"
    assert column_type("crpMotionPath") == "float"
