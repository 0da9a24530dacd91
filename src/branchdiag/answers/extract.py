r"""The final answer in a text: the last complete \boxed{...}.

Reads text a model wrote, gives the answer with its offsets and says how it was found. Knows nothing
of grading, tokens or templates. Every function is linear in the length of the text.

The rule of the released PW-OPSD evaluation takes the last `\boxed` whatever follows it, so that a
later bare or truncated `\boxed` hides an earlier complete one. Here the last *complete* box counts,
and a malformed later one is reported in the status (arXiv 2605.21606, appendices A and J).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Rule = Literal["last_complete", "after_thinking"]
"""Which part of a text counts: all of it, or only what follows closed thinking."""

Status = Literal["ok", "malformed_last", "empty", "malformed", "none", "unclosed_thinking"]
"""How an extraction ended.

`ok`: the last box is complete and has content. `malformed_last`: the same, but one or more later
boxes were malformed and skipped. `empty`: the last complete box is empty, no answer. `malformed`:
there are boxes, none complete. `none`: no box. `unclosed_thinking`: under `after_thinking` the
thinking never closed, so that no answer counts.
"""

THINK_TAGS = ("<think>", "</think>")

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is one unit: \{ and \} are text
_BLANK = re.compile(r"(?:\s|~|[{}$]|\\[,;:!> ]|\\q?quad(?![A-Za-z]))*")
_UNBRACED_START = re.compile(
    r"[-+]?(?:\d|\.\d|\\(?!boxed|fbox|[,;:!>{}()\[\]\s\\]))"
    r"|[A-Za-z](?=[.,;]?(?:\s|\$|\\[)\]]|$))"
)
_UNBRACED_STOP = re.compile(r"\\.|[\s${}]", re.DOTALL)
_UNBRACED_LIMIT = 256  # characters; a longer argument without braces is not an answer


@dataclass(frozen=True)
class Extraction:
    """An answer, or why there is none.

    Attributes:
        answer: content of the box without surrounding white space; None where nothing counts.
        status: see `Status`.
        start: offset of the box's backslash in the text; None without a complete box.
        end: offset one past the box.
        skipped: malformed boxes after the one that counts (all of them where none is complete).
    """

    answer: str | None
    status: Status
    start: int | None = None
    end: int | None = None
    skipped: int = 0


def last_boxed(
    text: str,
    *,
    rule: Rule = "last_complete",
    thinking_open: bool = False,
    tags: tuple[str, str] = THINK_TAGS,
) -> Extraction:
    r"""The last complete `\boxed` or `\fbox` of a text.

    Occurrences are tried from the right, so of nested boxes the inner one counts. Braces are
    matched as TeX does: `\{` and `\}` are characters, not groups. White space may stand before the
    brace. A box without braces holds what follows up to white space or the end of the formula, and
    must begin like mathematics (`\boxed 5`, `\boxed\frac12`): "in \boxed form" is malformed.

    Args:
        text: what the model wrote (for a continuation: the forced token and what followed it).
        rule: `last_complete` counts boxes anywhere, inside thinking too; `after_thinking` only
            those in `after_thinking(text)`.
        thinking_open: whether a think block is already open where the text begins.
        tags: opening and closing think tag.

    Returns:
        The extraction; offsets refer to `text` under both rules.
    """
    begin = 0
    if rule == "after_thinking":
        offset = _answer_offset(text, thinking_open, tags)
        if offset is None:
            return Extraction(None, "unclosed_thinking")
        begin = offset
    openings = [match.end() for match in _BOX.finditer(text, begin)]
    if not openings:
        return Extraction(None, "none")
    closed = _closed_groups(text, openings)
    for skipped, opening in enumerate(reversed(openings)):
        content = closed.get(opening) or _unbraced(text, opening)
        if content is None:
            continue
        start = text.rindex("\\", 0, opening)
        answer = text[content.first : content.last].strip()
        if _BLANK.fullmatch(answer):
            return Extraction(None, "empty", start, content.end, skipped)
        status: Status = "malformed_last" if skipped else "ok"
        return Extraction(answer, status, start, content.end, skipped)
    return Extraction(None, "malformed", skipped=len(openings))


def after_thinking(
    text: str, *, thinking_open: bool = False, tags: tuple[str, str] = THINK_TAGS
) -> str | None:
    """The part of a text that counts under the strict answer rule.

    - The last tag is a closing one: what follows it.
    - The last tag is an opening one: None, thinking was never closed.
    - No tag: None where thinking was open already when the text began (the prompt or the prefix
      opened it), else the whole text (the model did not think).
    """
    offset = _answer_offset(text, thinking_open, tags)
    return None if offset is None else text[offset:]


def is_thinking_open(
    text: str, *, thinking_open: bool = False, tags: tuple[str, str] = THINK_TAGS
) -> bool:
    """Whether a think block is open at the end of a text, such as a prompt or prompt and prefix."""
    return _answer_offset(text, thinking_open, tags) is None


def _answer_offset(text: str, thinking_open: bool, tags: tuple[str, str]) -> int | None:
    opening, closing = tags
    last_opening, last_closing = text.rfind(opening), text.rfind(closing)
    if last_closing > last_opening:
        return last_closing + len(closing)
    if last_opening >= 0 or thinking_open:
        return None
    return 0


class _Content(NamedTuple):
    first: int
    last: int
    end: int  # of the box, closing brace included


def _closed_groups(text: str, openings: list[int]) -> dict[int, _Content]:
    """The boxes with matching braces, by the offset where their command ends.

    One pass with a stack over all braces: matching each box on its own would be quadratic.
    """
    boxes: dict[int, int] = {}  # offset of a box's opening brace -> end of its command
    for opening in openings:
        brace = _skip_space(text, opening)
        if text.startswith("{", brace):
            boxes[brace] = opening
    closed: dict[int, _Content] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text, openings[0]):
        if match[0] == "{":
            stack.append(match.start())
        elif match[0] == "}" and stack:
            start = stack.pop()
            if start in boxes:
                closed[boxes[start]] = _Content(start + 1, match.start(), match.end())
    return closed


def _unbraced(text: str, opening: int) -> _Content | None:
    """An argument without braces, None where it does not look like mathematics."""
    begin = _skip_space(text, opening)
    if not _UNBRACED_START.match(text, begin):
        return None
    depth, end = 0, min(len(text), begin + _UNBRACED_LIMIT)
    for match in _UNBRACED_STOP.finditer(text, begin, end):
        unit = match[0]
        if unit == "{":
            depth += 1
        elif unit == "}" and depth:
            depth -= 1
        elif unit in ("}", "\\)", "\\]", "$") or (unit.isspace() and not depth):
            end = match.start()
            break
    else:
        if end < len(text):
            return None
    if depth:
        return None
    while text[end - 1] in ".,;:":
        end -= 1
    return _Content(begin, end, end)


def _skip_space(text: str, offset: int) -> int:
    while offset < len(text) and text[offset].isspace():
        offset += 1
    return offset
