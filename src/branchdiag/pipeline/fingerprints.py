"""What decides a phase's results, as plain content and as a hash; and what a restart removes.

A phase's content holds its settings (transport settings left out), its code and schema versions,
the identities of the models and data it uses, and the fingerprints of the phases it reads. Two
runs with equal fingerprints may share rows; anything else is a conflict that names what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.phases import PHASES
from branchdiag.phases.base import Phase
from branchdiag.pipeline.inputs import Inputs
from branchdiag.prompts import teacher_template
from branchdiag.protocol import Protocol
from branchdiag.settings_section import Section
from branchdiag.store.fingerprint import differences, fingerprint
from branchdiag.store.schemas import TABLES

OF_THE_CODE = ("version", "schemas")
"""Parts of a phase's content that this version of the program decides, not the user."""


def contents(
    protocol: Protocol,
    inputs: Inputs,
    seed: int,
    kept: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """The content that decides each phase's results, by letter.

    Args:
        kept: recorded contents of phases that are not asked for, by letter. Their settings stay
            as they were made with; code, schemas and what they read are still compared.
    """
    identities = {
        "student": inputs.student.content_id,
        "teacher": inputs.teacher.content_id,
        "problems": inputs.data_id,
        "seed": seed,
        "engine": inputs.engine_name,
        "dtype": protocol.engine.dtype,
    }
    result: dict[str, dict[str, Any]] = {}
    for phase in PHASES.values():
        content: dict[str, Any] = {
            "version": phase.version,
            "schemas": {name: TABLES[name].version for name in phase.writes},
            **settings_of(protocol, phase),
            **{name: identities[name] for name in phase.inputs},
        }
        if phase.letter in kept:
            content = {**kept[phase.letter], **{name: content[name] for name in OF_THE_CODE}}
        elif phase.letter == "B":
            # The text that counts, whichever setting or file it comes from.
            template = teacher_template(protocol.teacher, protocol.spine.prompt)
            content["teacher_template"] = template.text
        elif phase.letter == "N1":
            content["teacher_templates"] = _template_texts(protocol)
        content["reads"] = {letter: fingerprint(result[letter]) for letter in phase.reads}
        result[phase.letter] = content
    return result


def require_templates(protocol: Protocol, letters: Iterable[str]) -> None:
    """Refuse a teacher context that cannot be used before anything is removed for its sake.

    Raises:
        UsageError: N1 is to run, and one of its contexts is unknown or its file cannot be used.
    """
    if "N1" in letters:
        for context in protocol.align.contexts:
            try:
                _template_text(protocol, context)
            except UsageError as error:
                where = f"align.contexts: {context}"
                raise UsageError(error.what, where=where, fix=error.fix) from None


def _template_text(protocol: Protocol, context: str) -> str:
    teacher = protocol.teacher.model_copy(update={"context": context})
    return teacher_template(teacher, protocol.spine.prompt).text


def _template_texts(protocol: Protocol) -> dict[str, str]:
    """The text of each teacher context that N1 compares; other commands need none of them."""
    texts = {}
    for context in protocol.align.contexts:
        try:
            texts[context] = _template_text(protocol, context)
        except UsageError:
            texts[context] = "(cannot be used)"
    return texts


def settings_of(protocol: Protocol, phase: Phase) -> dict[str, Any]:
    """The result-changing settings of a phase, by section."""
    chosen: dict[str, Any] = {}
    for path in phase.settings:
        section, _, key = path.partition(".")
        values = getattr(protocol, section)
        assert isinstance(values, Section)
        if key:
            settings = values.result_settings()
            if key in settings:  # an added one at its default is not
                chosen.setdefault(section, {})[key] = settings[key]
        else:
            chosen[section] = values.result_settings()
    return chosen


def dependents(letter: str) -> tuple[str, ...]:
    """A phase and every phase that reads it, directly or not, in order."""
    reached = {letter}
    for phase in PHASES.values():  # in order: a phase reads earlier ones alone
        if reached & {*phase.reads, *phase.also_reads}:
            reached.add(phase.letter)
    return tuple(name for name in PHASES if name in reached)


def of_other_commands(
    stored: Mapping[str, Mapping[str, Any]], letters: Iterable[str]
) -> dict[str, Mapping[str, Any]]:
    """Recorded contents of the stages of other commands than the one that runs these letters.

    Args:
        stored: the manifest's record of each phase.
    """
    asked = set(letters)
    return {
        letter: stored[letter]["content"]
        for letter, phase in PHASES.items()
        if phase.command is not None and letter not in asked and "content" in stored.get(letter, {})
    }


def outdated(
    stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """Phases of one unit whose settings are as they were, but not their code or what they read.

    Such a phase holds nothing that was dear to make: it is made anew and is no conflict.
    """
    own = (*OF_THE_CODE, "reads")
    letters = []
    for letter, phase in PHASES.items():
        old = stored.get(letter, {}).get("content")
        if phase.unit or old is None or fingerprint(old) == fingerprint(wanted[letter]):
            continue
        kept = [
            {k: v for k, v in content.items() if k not in own} for content in (old, wanted[letter])
        ]
        if fingerprint(kept[0]) == fingerprint(kept[1]):
            letters.append(letter)
    return tuple(letters)


def check(
    stored: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
    letters: Iterable[str],
    where: Path,
) -> None:
    """Refuse to go on where a stored phase was made with other content.

    Raises:
        SettingsConflict: says what changed and the earliest phase to restart from.
    """
    lines: list[str] = []
    first: str | None = None
    anew = outdated(stored, wanted)
    for letter in letters:
        old = stored.get(letter, {}).get("content")
        if old is None or letter in anew or fingerprint(old) == fingerprint(wanted[letter]):
            continue
        first = first or letter
        own_old = {key: value for key, value in old.items() if key != "reads"}
        own_new = {key: value for key, value in wanted[letter].items() if key != "reads"}
        lines += [f"phase {letter}: {line}" for line in differences(own_old, own_new)]
    if first is not None:
        # A stage that a command adds to a run has no --out of its own.
        another = "" if PHASES[first].command else "--out DIR starts another run; "
        raise SettingsConflict(
            "this run was made with other settings:\n  " + "\n  ".join(lines),
            where=str(where),
            fix=f"--restart-from {first} removes phases {', '.join(dependents(first))} and makes "
            f"them anew; {another}or give the settings it was made with",
        )
