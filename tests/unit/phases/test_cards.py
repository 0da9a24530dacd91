"""The card of each phase says what the code does: its columns and its defaults."""

import json
import re
from pathlib import Path

import pytest

from branchdiag.phases import PHASES
from branchdiag.protocol import Protocol
from branchdiag.settings_section import Section
from branchdiag.store.schemas import TABLES

CARDS = Path(__file__).parents[3] / "phases"


def card_of(letter: str) -> str:
    (path,) = CARDS.glob(f"{letter.lower()}_*.md")
    return path.read_text(encoding="utf-8")


def rows_under(text: str, heading: str) -> list[list[str]]:
    """Cells of the table that follows a heading, without its two head lines."""
    after = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in after.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines[2:]]
    return [[c.strip("| ") for c in row] for row in cells]


def flat_settings(path: str) -> dict[str, tuple[object, str]]:
    section, _, key = path.partition(".")
    model = getattr(Protocol(), section)
    flat: dict[str, tuple[object, str]] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if key and name != key:
            continue
        if isinstance(value, Section):
            for inner, inner_field in type(value).model_fields.items():
                flat[f"{section}.{name}.{inner}"] = (
                    getattr(value, inner),
                    inner_field.description or "",
                )
        else:
            flat[f"{section}.{name}"] = (value, field.description or "")
    return flat


@pytest.mark.parametrize("letter", PHASES)
def test_every_column_of_the_phase_is_on_its_card(letter: str) -> None:
    text = card_of(letter)
    for name in PHASES[letter].writes:
        found = rows_under(text, f"Table `{name}`")
        expected = [
            [
                f"`{column.name}`",
                str(column.type),
                "yes" if column.nullable else "no",
                column.description.replace("|", "&#124;"),
            ]
            for column in TABLES[name].columns
        ]
        assert found == expected


@pytest.mark.parametrize("letter", PHASES)
def test_every_default_of_the_phase_is_on_its_card(letter: str) -> None:
    found = {row[0].strip("`"): row[1:] for row in rows_under(card_of(letter), "Settings")}
    expected: dict[str, tuple[object, str]] = {}
    for path in PHASES[letter].settings:
        expected |= flat_settings(path)
    assert found.keys() == expected.keys()
    for key, (value, description) in expected.items():
        long_text = isinstance(value, str) and len(value) > 24
        shown = "`(text)`" if long_text else f"`{json.dumps(value)}`"
        assert found[key] == [shown, description.replace("|", "&#124;")], key


@pytest.mark.parametrize("letter", PHASES)
def test_the_card_names_its_code_its_reads_and_its_question(letter: str) -> None:
    phase, text = PHASES[letter], card_of(letter)
    module = re.search(r"Code: `src/(branchdiag/phases/\w+\.py)`", text)
    assert module is not None
    assert module[1].removesuffix(".py").replace("/", ".") == phase.work.__module__
    assert f"*{phase.question}*" in text
    for read in phase.reads:
        assert f"Phase {read}" in text.split("Reads ", 1)[1].split(";", 1)[0]
