"""Prompts: from a problem to the token ids that the student and the teacher are given.

Reads template texts (a protocol's, or a file) and a tokenizer's chat template; writes nothing.
Knows no model and no engine. The texts are those of arXiv 2605.21606 (appendix A for the teacher);
the rule for `</think>` is that of its authors' training code, here for any role with thinking off.

Template texts. `{problem}`, `{answer}` and `{solution}` are replaced, all in one pass: what is put
in is never searched again, so a problem that contains "{answer}" or "\\boxed{}" stays as it is.
Every other brace is literal: `\\boxed{}` stays, and `\\boxed{{answer}}` is the answer in braces,
`\\boxed{42}`. What is likely a slip is refused: an unknown name in braces, `{{problem}}`, and
`\\boxed{answer}`, which would lose its braces. (An argument of a LaTeX command, `\\frac{a}{b}`, is
literal.) There is no escape: a name in braces with a space, `{ name }`, is literal too.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Protocol

from branchdiag.errors import UsageError
from branchdiag.problems import Problem
from branchdiag.protocol import SpineSettings, TeacherSettings

CONTEXTS = ("answer", "solution", "none")
FIELDS = ("problem", "answer", "solution")
CLOSE_THINKING = "</think>\n\n"
TEMPLATE_DATE = date(2024, 7, 26)
"""What "today" is inside a chat template: a run that is resumed tomorrow sees the same prompts."""

_PLACEHOLDER = re.compile(r"\{(problem|answer|solution)\}")
_BRACED_NAME = re.compile(r"\{+(?P<name>[A-Za-z_]\w*)\}+")
_LATEX_BEFORE = re.compile(r"(\\[A-Za-z]+\*?(\[[^\[\]]*\]|\{[^{}]*\})*|[_^])\Z")
_OPEN_THINKING = re.compile(r"<think\s*>\s*\Z")


class ChatTokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    all_special_tokens: list[str]

    def get_chat_template(self) -> str: ...
    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any: ...
    def __call__(self, text: str, **settings: Any) -> Any: ...
    def decode(self, token_ids: Any, **settings: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template text, where it is from, and the fields it uses."""

    text: str
    where: str
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the model gets it: token_ids is what the text encodes to, with no token added."""

    token_ids: tuple[int, ...]
    text: str


def parse_template(text: str, *, where: str, allowed: Collection[str] = FIELDS) -> Template:
    """Check a template text.

    Raises:
        UsageError: no `{problem}`, a field that is not allowed, an unknown name in braces, or
            braces that would not come out as meant; every fault is listed.
    """
    faults = list(dict.fromkeys(_template_faults(text, allowed)))
    if faults:
        raise UsageError(
            "the prompt template cannot be used:\n    " + "\n    ".join(faults),
            where=where,
            fix="placeholders here: " + ", ".join(f"{{{name}}}" for name in allowed),
        )
    return Template(text, where, frozenset(_PLACEHOLDER.findall(text)))


def student_template(spine: SpineSettings) -> Template:
    """The student's user message; it may use the problem alone."""
    return parse_template(spine.prompt, where="spine.prompt", allowed=("problem",))


def teacher_template(teacher: TeacherSettings, student_prompt: str) -> Template:
    """The teacher's user message for its context.

    A context is answer, solution, none (its own prompt or, as a rule, the student's) or the path of
    a UTF-8 file; one newline that ends the file is no part of the message.

    Raises:
        UsageError: an unknown context, an unreadable file, or a template that cannot be used.
    """
    context, prompts = teacher.context, teacher.prompts
    if context == "none":
        text = student_prompt if prompts.none is None else prompts.none
        return parse_template(text, where="teacher.prompts.none", allowed=("problem",))
    if context in ("answer", "solution"):
        where = f"teacher.prompts.{context}"
        template = parse_template(getattr(prompts, context), where=where)
        if context not in template.fields:
            raise UsageError(
                f"the prompt of the {context} context has no {{{context}}}", where=where
            )
        return template
    return parse_template(_read_template(context), where=context)


def fill(template: Template, problem: Problem) -> str:
    """Put a problem into a template, in one pass.

    Raises:
        UsageError: the template wants a solution and the problem has none.
    """
    require_solutions(template, [problem])
    return _PLACEHOLDER.sub(lambda match: str(getattr(problem, match[1])), template.text)


def require_solutions(template: Template, problems: Sequence[Problem]) -> None:
    """Refuse problems without a solution where the template shows it: all of them in one error."""
    lacking = [problem.problem_id for problem in problems if problem.solution is None]
    if "solution" not in template.fields or not lacking:
        return
    more = f" and {len(lacking) - 20} more" if len(lacking) > 20 else ""
    raise UsageError(
        f"the teacher is to see the solution, and {len(lacking)} of {len(problems)} problems have "
        f"none: {', '.join(lacking[:20])}{more}",
        where=template.where,
        fix="--set teacher.context=answer, or problems with a solution column",
    )


def render_student(tokenizer: ChatTokenizer, spine: SpineSettings, problem: Problem) -> Rendered:
    """The student's prompt for a problem. Raises UsageError as `render` and the templates do."""
    return render(tokenizer, fill(student_template(spine), problem), thinking=spine.thinking)


def render_teacher(
    tokenizer: ChatTokenizer,
    teacher: TeacherSettings,
    student_prompt: str,
    problem: Problem,
    *,
    template: Template | None = None,
) -> Rendered:
    """The teacher's prompt for a problem; `template`: as `teacher_template` gave it, read once."""
    template = template or teacher_template(teacher, student_prompt)
    return render(tokenizer, fill(template, problem), thinking=teacher.thinking)


def render(tokenizer: ChatTokenizer, message: str, *, thinking: bool) -> Rendered:
    """A user message inside the chat template, up to where the assistant begins.

    With thinking off, a prompt that ends in an open `<think>` gets "</think>\\n\\n" (templates that
    force thinking). The text is encoded with add_special_tokens=False: a BOS is there if and only
    if the template writes it.

    Raises:
        UsageError: no chat template, a template that fails, or a message that contains a control
            token, which the model would read as the end of a turn.
    """
    control = [token for token in tokenizer.all_special_tokens if token in message]
    if control:
        raise UsageError(
            f"the text of the prompt contains the control token {', '.join(control)}",
            where=message if len(message) < 200 else message[:200] + "…",
            fix="take it out of the problem, its solution or the template",
        )
    text = _apply_template(tokenizer, message, thinking)
    if not thinking and opens_thinking(text):
        text += CLOSE_THINKING
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Rendered(tuple(int(token) for token in token_ids), text)


def prompt_opens_thinking(rendered: Rendered) -> bool:
    """Whether the model starts inside a think block, so that an answer counts only after it."""
    return opens_thinking(rendered.text)


def opens_thinking(text: str) -> bool:
    """Whether a rendered prompt ends in an open `<think>`."""
    return _OPEN_THINKING.search(text) is not None


def thinking_mode(tokenizer: ChatTokenizer) -> Literal["honours", "ignores", "forces"]:
    """What the chat template does with enable_thinking, before anything is appended.

    honours: the prompt depends on it. forces: it does not, and ends in an open `<think>`. ignores:
    it does not.
    """
    on, off = (_apply_template(tokenizer, "1 + 1 = ?", flag) for flag in (True, False))
    if on != off:
        return "honours"
    return "forces" if opens_thinking(on) else "ignores"


def template_hash(tokenizer: ChatTokenizer, template: Template, *, thinking: bool) -> str:
    """SHA-256 of all that turns a problem into one role's prompt, for that role's fingerprint."""
    parts = {
        "chat_template": _chat_template(tokenizer),
        "date": TEMPLATE_DATE.isoformat(),
        "prompt": template.text,
        "thinking": thinking,
        # The frame as rendered: special tokens that the template names, the closure.
        "frame": render(tokenizer, "1 + 1 = ?", thinking=thinking).text,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()


def prompt_tail(
    tokenizer: ChatTokenizer, rendered: Rendered, n_tokens: int = 24
) -> list[tuple[int, str]]:
    """The last tokens of a prompt, each with its own text, for a person to look at."""
    return [
        (token, str(tokenizer.decode([token], clean_up_tokenization_spaces=False)))
        for token in rendered.token_ids[-n_tokens:]
    ]


def _template_faults(text: str, allowed: Collection[str]) -> list[str]:
    faults = [] if _PLACEHOLDER.search(text) and "{problem}" in text else ["{problem} is missing"]
    for match in _BRACED_NAME.finditer(text):
        name, braced = match["name"], match[0]
        before = _LATEX_BEFORE.search(text, 0, match.start())
        command = before[0] if before else ""
        if name not in FIELDS:
            if not command:
                near = difflib.get_close_matches(name, allowed, n=1)
                faults.append(
                    f"unknown placeholder {{{name}}}"
                    + (f"; did you mean {{{near[0]}}}?" if near else "")
                )
        elif name not in allowed:
            faults.append(f"{{{name}}} may not be used here")
        elif braced != f"{{{name}}}" and not command:
            faults.append(f"{braced} keeps a pair of braces; write {{{name}}}")
        elif braced == f"{{{name}}}" and command.startswith("\\"):
            faults.append(f"{command}{braced} loses its braces; write {command}{{{braced}}}")
    return faults


def _read_template(context: str) -> str:
    path = Path(context).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(
            "the template file is not UTF-8", where=context, fix="save it as UTF-8"
        ) from None
    except OSError as error:
        near = difflib.get_close_matches(context, CONTEXTS, n=1)
        raise UsageError(
            f"no such teacher context, and no such file ({error.strerror})"
            + (f"; did you mean {near[0]}?" if near else ""),
            where=f"teacher.context = {context}",
            fix="answer, solution, none or the path of a template file",
        ) from None


def _chat_template(tokenizer: ChatTokenizer) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise UsageError(
            "the tokenizer has no chat template to use: " + str(error).partition("!")[0],
            where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
            fix="take a chat or reasoning model, or a copy of this one with a chat_template.jinja "
            "beside its tokenizer",
        ) from None


def _apply_template(tokenizer: ChatTokenizer, message: str, thinking: bool) -> str:
    import jinja2

    template = _chat_template(tokenizer)
    settings: dict[str, Any] = {}
    if "strftime_now" in template or "date_string" in template:
        settings["strftime_now"] = TEMPLATE_DATE.strftime
        settings["date_string"] = TEMPLATE_DATE.strftime("%d %b %Y")
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": message}],
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=thinking,
                **settings,
            )
        )
    except jinja2.TemplateError as error:
        raise UsageError(
            f"the chat template failed: {error}",
            where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
            fix="the model's chat template must take one user message",
        ) from None
