"""The Hugging Face hub as far as it can be reached, its cache first.

Reads the hub through huggingface_hub; knows nothing of rows or of what a source means. The hub was
out of reach where this was written: requests and their errors are handled as huggingface_hub
documents them, and tested with a stand-in for the hub.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from branchdiag.errors import UsageError

COMMIT = re.compile(r"[0-9a-f]{40}")
_T = TypeVar("_T")


class HubUnreachableError(Exception):
    """No answer from the hub, and the cache does not hold what was asked."""


class Hub:
    """The hub as far as it can be reached: after one failure only the cache is asked."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def file(self, repository: str, name: str, revision: str) -> Path:
        """A file of a data repository, from the cache if the revision is a cached commit."""
        from huggingface_hub import hf_hub_download

        def download(local_files_only: bool) -> str:
            return hf_hub_download(
                repository,
                name,
                repo_type="dataset",
                revision=revision,
                local_files_only=local_files_only,
            )

        where = f"{repository}@{revision}#{name}"
        return Path(self._cached_or_asked(where, download, ask_first=not is_commit(revision)))

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag is at; the revision as given where the hub is away."""
        from huggingface_hub import HfApi

        try:
            info = self._asked(
                f"{repository}@{revision}",
                lambda: HfApi().dataset_info(repository, revision=revision),
            )
        except HubUnreachableError:
            return revision
        return str(info.sha)

    def names(self, repository: str, revision: str, *, ask_first: bool) -> list[str]:
        """All file names of a data repository at a revision."""
        from huggingface_hub import HfApi, snapshot_download

        def list_names(local_files_only: bool) -> list[str]:
            if not local_files_only:
                return HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
            snapshot = snapshot_download(
                repository, repo_type="dataset", revision=revision, local_files_only=True
            )
            return relative_names(Path(snapshot))

        return self._cached_or_asked(f"{repository}@{revision}", list_names, ask_first=ask_first)

    def _cached_or_asked(self, where: str, call: Callable[[bool], _T], *, ask_first: bool) -> _T:
        """`call(local_files_only)` on the cache, then on the hub; `ask_first` turns it round."""
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError

        if ask_first:
            try:
                return self._asked(where, lambda: call(False))
            except HubUnreachableError:
                pass  # the cache may still hold it
        try:
            return call(True)
        except HFValidationError as error:
            raise UsageError(_first_line(error), where=where) from error
        except (EntryNotFoundError, FileNotFoundError) as error:
            if ask_first:
                raise HubUnreachableError(self.reason) from error
        return self._asked(where, lambda: call(False))

    def _asked(self, where: str, call: Callable[[], _T]) -> _T:
        """One request. What the hub refuses is the user's to mend; all else is unreachable."""
        from huggingface_hub import constants
        from huggingface_hub import errors as hub

        if self.reason is None:
            offline = constants.HF_HUB_OFFLINE
            self.reason = (
                "HF_HUB_OFFLINE is set" if offline else _cannot_resolve(constants.ENDPOINT)
            )
        if self.reason is not None:
            raise HubUnreachableError(self.reason)
        logger = logging.getLogger("huggingface_hub")
        level = logger.level
        logger.setLevel(logging.ERROR)  # its retries would bury the one message that matters
        try:
            return call()
        except hub.GatedRepoError as error:
            fix = "accept its terms on the hub, then `hf auth login`"
            raise UsageError("this data set is gated", where=where, fix=fix) from error
        except hub.RepositoryNotFoundError as error:
            what = "the hub has no such data set, or it is private"
            raise UsageError(what, where=where) from error
        except hub.RevisionNotFoundError as error:
            raise UsageError("the data set has no such revision", where=where) from error
        except hub.RemoteEntryNotFoundError as error:
            raise UsageError("the data set has no such file", where=where) from error
        except hub.HFValidationError as error:
            raise UsageError(_first_line(error), where=where) from error
        except Exception as error:  # its HTTP library changes by version, and with it the errors
            self.reason = _first_line(error)
            raise HubUnreachableError(self.reason) from error
        finally:
            logger.setLevel(level)


def relative_names(root: Path) -> list[str]:
    """All files below `root`, relative, with `/`; nothing of hidden directories."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend((Path(folder) / name).relative_to(root).as_posix() for name in files)
    return sorted(found)


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit hash: then what it names never changes."""
    return COMMIT.fullmatch(revision) is not None


def _cannot_resolve(endpoint: str) -> str | None:
    """Why the hub's host has no address: asked once, as huggingface_hub retries for 23 s."""
    parts = urllib.parse.urlsplit(endpoint)
    if urllib.request.getproxies() or parts.hostname is None:
        return None
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except OSError as error:
        return f"{parts.hostname}: {error.strerror or error}"
    return None


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
