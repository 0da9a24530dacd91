"""Imports run one way, and the rooms stay closed to what they do not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "src" / "branchdiag"
LAYERS = {
    "cli": 5,
    "pipeline": 4,
    "phases": 3,
    "report": 3,
    "training": 4,
    "evaluation": 4,
    "engines": 2,
    "scoring": 2,
    "stats": 2,
    "bundled": 2,
    "store": 1,
    "signals": 0,
    "problems": 1,
    "answers": 1,
}
FORBIDDEN = {
    "stats": {"torch", "transformers", "pandas", "pyarrow"},
    "store": {"torch", "transformers"},
    "signals": {"torch", "transformers", "numpy", "pandas", "pyarrow"},
    "report": {"torch", "transformers", "scipy"},
    "cli": {"torch", "transformers", "pandas", "scipy", "numpy", "matplotlib", "pyarrow"},
    "pipeline": {"transformers", "scipy", "matplotlib"},
    "answers": {"torch", "transformers", "pandas"},
    "problems": {"torch", "transformers"},
}


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield path, place


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names a module imports; those under TYPE_CHECKING are no imports at run time."""
    found: set[str] = set()

    def visit(node: ast.AST, nested: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            inside = nested or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if not (inside and top_level_only):
                if isinstance(child, ast.Import):
                    found.update(alias.name for alias in child.names)
                elif isinstance(child, ast.ImportFrom) and child.module:
                    found.add(child.module)
                    if child.module == "branchdiag":
                        found.update(f"branchdiag.{alias.name}" for alias in child.names)
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


@pytest.mark.parametrize(
    ("path", "place"), list(modules()), ids=lambda value: getattr(value, "name", value)
)
def test_imports_run_downwards(path: Path, place: str) -> None:
    level = LAYERS.get(place, 0 if path.parent != PACKAGE else 1)
    if path.parent == PACKAGE and path.name in ("__main__.py", "api.py", "__init__.py"):
        return  # doors of the package
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "branchdiag" or len(parts) < 2 or parts[1] == place:
            continue
        other = LAYERS.get(parts[1], 1)
        lazily_bundled = parts[1] == "bundled"  # data files, asked for by name
        assert other <= level or lazily_bundled, f"{path.name} ({place}) imports {name}"


def test_a_phase_never_imports_another() -> None:
    paths = [p for p in (PACKAGE / "phases").glob("*.py") if re.match(r"([a-gs]|[np]\d)_", p.name)]
    phases = {path.stem for path in paths}
    for path in paths:
        for name in imported(path):
            other = name.rpartition(".")[2]
            same_letter = other[:2] == path.stem[:2]
            assert other not in phases or same_letter, f"{path.stem} imports {other}"


@pytest.mark.parametrize("place", FORBIDDEN)
def test_no_room_loads_what_it_does_not_know_at_import(place: str) -> None:
    for path, found_place in modules():
        if found_place == place:
            heavy = {name.split(".")[0] for name in imported(path, top_level_only=True)}
            assert not heavy & FORBIDDEN[place], path


def test_every_module_says_what_it_is_and_is_one_room() -> None:
    for path, _ in modules():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        assert path.name == "__init__.py" or ast.get_docstring(tree), path
        assert len(text.splitlines()) <= 400, f"{path} is two rooms"
