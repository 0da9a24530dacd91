"""What every printout has in common: tables without lines, and text that steers no display.

Takes text and a Rich console. Model text is untrusted: it never reaches Rich's markup, control
sequences are shown instead of sent, and a terminal without UTF-8 gets ASCII. Knows no document.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from branchdiag.report.wording import visible

_ASCII = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "●": "o", "○": "o", "◇": "*", "━": "=", "┊": ":", "…": "...",
        "↵": "\\n", "␣": "_", "✓": "*", "⟨": "<", "⟩": ">", "’": "'", "“": '"', "”": '"', "·": "-",
        "█": "#", "░": ".", "±": "+-",
    }
)  # fmt: skip


def plain_table() -> Table:
    """An empty table without lines; the caller adds columns."""
    return Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)


def cells(console: Console, *texts: str) -> list[Text]:
    """The texts as cells that the console may have."""
    return [Text(plain_text(text, console)) for text in texts]


def say(
    console: Console, text: str, *more: tuple[str, str], style: str = "", wrap: bool = True
) -> None:
    """Print a text in a style, then further (text, style) pieces on the same line."""
    pieces = [(text, style), *more]
    line = Text.assemble(*[(plain_text(piece, console), look) for piece, look in pieces])
    console.print(line, soft_wrap=not wrap)


def plain_text(text: str, console: Console) -> str:
    """Text as the console may have it: nothing in it steers the display or breaks its encoding."""
    shown = visible(text)
    if not console.options.ascii_only:
        return shown
    return shown.translate(_ASCII).encode("ascii", "replace").decode("ascii")
