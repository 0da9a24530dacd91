"""The page on evaluation names what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchdiag.evaluation.settings import load_settings
from branchdiag.store.evaluation_schemas import GRADES, OUTCOMES, SAMPLES
from branchdiag.store.schemas import TableSchema

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("schema", [SAMPLES, GRADES, OUTCOMES], ids=lambda schema: schema.name)
def test_every_column_stands_on_the_page(schema: TableSchema) -> None:
    section = PAGE.partition(f"| `{schema.name}` |")[2].partition("\n\n")[0]
    assert [c.name for c in schema.columns if f"`{c.name}`" not in section] == []


def test_the_defaults_on_the_page_are_the_codes() -> None:
    settings = load_settings(bundled=False)
    assert f"| N and repeats | {settings.n} and {settings.seeds} |" in PAGE
    assert f"{settings.sampling.max_new_tokens:,} new tokens" in PAGE
    assert f"{settings.comparison.resamples:,} resamples" in PAGE
    for name in settings.problems:
        assert f"`{name}`" in PAGE
    bundled = load_settings(bundled=True)
    assert (bundled.n, bundled.seeds) == (settings.n, settings.seeds)
    assert bundled.problems == ("bundled:evaluate:100",)
