"""Tables of items: bounded, honest about what they leave out, and telling about what is worst."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cryopipe.report.drawing.tables import ABSENT, Column, make_table, numbers_of, numeric, summary, worst_and_sample

HIGH = Column("a", "first", "Å", 1, "high", "Says.")
LOW = Column("b", "second", "", 2, "low")


def frame(n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    status = np.where(np.arange(n) % 50 == 7, "rejected", "accepted")
    return pd.DataFrame(
        {"status": status, "a": rng.normal(10, 1, n), "b": rng.normal(0, 1, n)}, index=[f"m{i}" for i in range(n)]
    )


def test_a_small_table_shows_every_row_in_the_order_of_the_run() -> None:
    table = make_table(frame(20), [HIGH, LOW], key="k", caption="c", limit=20)
    assert [cells[0] for _, cells in table.rows] == [f"m{i}" for i in range(20)]
    assert table.total == 20


def test_a_large_table_keeps_its_bound_with_the_worst_of_each_criterion_and_rejected_rows_among_them() -> None:
    rows = frame(5000)
    table = make_table(rows, [HIGH, LOW], key="k", caption="c", limit=100)
    shown = [cells[0] for _, cells in table.rows]
    assert len(shown) == len(set(shown)) == 100
    assert table.total == 5000
    assert {rows["a"].idxmax(), rows["b"].idxmin()} <= set(shown)
    assert sum(cells[1] == "rejected" for _, cells in table.rows) >= 25  # a quarter of the bound
    assert shown == sorted(shown, key=lambda item: int(item[1:]))


def test_the_worst_come_first_and_say_why_and_a_column_without_spread_names_nobody() -> None:
    rows = frame().assign(c=1.0)
    picked = worst_and_sample(rows, [Column("c", "constant", worst="high"), HIGH, LOW], 12)
    assert len(picked) == 12
    assert rows.index[picked[0][0]] == rows["a"].idxmax()
    assert picked[0][1] == f"first {rows['a'].max():.1f} Å: highest"
    assert rows.index[picked[1][0]] == rows["b"].idxmin()
    assert not any("constant" in why for _, why in picked)
    assert [why for _, why in picked].count("sample") == 6


def test_the_sample_reaches_over_the_whole_run() -> None:
    places = sorted(position for position, why in worst_and_sample(frame(1000), [], 11) if why == "sample")
    assert places[0] < 100
    assert places[-1] > 900


def test_missing_values_are_absent_from_cells_and_summaries_and_null_in_the_json() -> None:
    raw = pd.DataFrame(
        {"status": ["accepted"] * 3, "a": [-9999.0, 2.0, 4.0], "b": [-9999.0] * 3}, index=["x", "y", "z"]
    )
    rows = numeric(raw, [HIGH, LOW])
    table = make_table(rows, [HIGH, LOW], key="k", caption="c", limit=9)
    assert [column.label for column in table.columns] == ["item", "status", "first"]  # b says nothing anywhere
    assert [cells[2] for _, cells in table.rows] == [ABSENT, "2.0", "4.0"]
    assert summary(rows, [HIGH, LOW])["a"]["median"] == 3.0
    assert numbers_of(rows, [HIGH, LOW])["rows"] == [
        ["x", "accepted", None],
        ["y", "accepted", 2.0],
        ["z", "accepted", 4.0],
    ]


def test_an_empty_table_is_legal() -> None:
    table = make_table(frame(0), [HIGH, LOW], key="k", caption="c", limit=9)
    assert (table.rows, table.total) == ([], 0)
