"""A training run's directory: what it was made with, who writes to it, how far it is.

Reads and writes training.json; its lock is the one of every run. The identity (settings that change
results, model, data, schedule) must be that of the run: nothing is mixed. Knows no model and no
loss. Layout:

    training.json  metrics.jsonl  held_out.jsonl  checkpoints/step-000025/...  adapter/ (or model/)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from branchdiag import __version__
from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.store.atomic import user_errors, write_json
from branchdiag.store.fingerprint import differences, fingerprint
from branchdiag.store.lock import Lock
from branchdiag.training.checkpoints import remove_leftovers, saved_steps
from branchdiag.training.results import MANIFEST

FORMAT = "branchdiag.training"
VERSION = 1
NEEDED = ("identity", "finished_steps", "model", "data")
"""What resuming reads of a manifest."""


def read_manifest(path: Path) -> dict[str, Any] | None:
    """What a directory says of its training run; None where it holds none.

    Raises:
        UsageError: the file is damaged or of another version.
    """
    file = path / MANIFEST
    if not file.is_file():
        return None
    fix = "put back a copy of that file, or another --out"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["version"] if manifest["schema"] == FORMAT else None
        if version == VERSION:
            absent = [key for key in NEEDED if key not in manifest]
            if absent:
                raise ValueError(f"it lacks {', '.join(absent)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"this is no training run: {error}", where=str(file), fix=fix) from None
    if version != VERSION:
        raise UsageError(
            f"this training run has format {version!r}; {VERSION} is known",
            where=str(file),
            fix="update branchdiag, or another --out",
        )
    return manifest


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the directory, which is made where it is not there, and clear what a kill has left.

    Raises:
        RunInUse: another process holds it.
        StorageError: it cannot be made.
        SettingsConflict: it holds a run of another kind.
        UsageError: it is a file, or holds files of somebody else.
    """
    if any((path / other).exists() for other in ("run.json", "evaluation.json")):
        raise SettingsConflict(
            "this directory holds a run of another kind", where=str(path), fix="another --out"
        )
    if path.exists() and not path.is_dir():
        raise UsageError(
            f"{path.name} is a file, not a directory", where=str(path), fix="another --out"
        )
    with user_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / MANIFEST).exists():
            _refuse_foreign(path)
    lock = Lock(path / ".lock")
    lock.acquire()
    try:
        remove_leftovers(path)
        yield
    finally:
        lock.release()


def _refuse_foreign(path: Path) -> None:
    """Training writes, and removes, files of its own names: never among files that are not its."""
    foreign = sorted(e.name for e in path.iterdir() if not e.name.startswith("."))
    if foreign:
        raise UsageError(
            f"{path.name} holds files but no training run ({', '.join(foreign[:3])})",
            where=str(path),
            fix="another --out, or empty the directory if you do not need it",
        )


def check(
    path: Path,
    manifest: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
    *,
    steps: int,
    resume: bool,
) -> int:
    """The step to go on from: 0 in a new directory.

    Raises:
        SettingsConflict: the directory holds a run of other settings or one that is beyond `steps`,
            or an unfinished one and `resume` was not asked for.
    """
    if manifest is None:
        return 0
    changed = differences(manifest["identity"], identity)
    if changed:
        raise SettingsConflict(
            "this directory holds a run with other settings:\n    " + "\n    ".join(changed[:20]),
            where=str(path),
            fix="another --out, or the settings that it was made with",
        )
    made = saved_steps(path)
    if made and made[-1] > steps:
        raise SettingsConflict(
            f"this run is at step {made[-1]} already, beyond the {steps} that were asked for",
            where=str(path),
            fix=f"--steps {made[-1]} or more, or another --out",
        )
    if not resume:
        at = f"its last checkpoint is step {made[-1]}" if made else "it has no checkpoint yet"
        raise SettingsConflict(
            f"this directory holds an unfinished run; {at}",
            where=str(path),
            fix="the same command with --resume goes on; or another --out",
        )
    return made[-1] if made else 0


def new_manifest(
    identity: Mapping[str, Any], described: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """A manifest for a run that begins."""
    return {
        "schema": FORMAT,
        "version": VERSION,
        "branchdiag": __version__,
        "command": command,
        "finished_steps": None,
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        **described,
    }


def save_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    write_json(path / MANIFEST, manifest)
