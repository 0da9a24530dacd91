"""Downloads through huggingface_hub from a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from branchdiag.errors import UsageError
from branchdiag.problems import data_identity, load_problems, recorded_revisions

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def serve(root: Path) -> None:
    """Write the data set that is served."""
    path = root / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"problem": ["p", "q"], "answer": ["204", "025"]}), path)


class StandInHub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs, for one data set in a directory."""

    root: Path
    requests: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        type(self).requests.append(path)
        names = sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*.*"))
        if "/owner/name" not in path:
            self.send(404, {"X-Error-Code": "RepoNotFound"}, b"", body)
        elif path.startswith("/api/datasets/owner/name/revision/") or path.endswith("owner/name"):
            if "nowhere" in path:
                self.send(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
                return
            siblings = [{"rfilename": name} for name in names]
            info = {"id": "owner/name", "sha": COMMIT, "siblings": siblings}
            self.send_json(info, body)
        elif path.startswith("/api/datasets/owner/name/tree/"):
            tree = [{"type": "file", "path": n, "size": 1, "oid": "0" * 40} for n in names]
            self.send_json(tree, body)
        elif "/resolve/" in path and (name := path.partition(f"/{COMMIT}/")[2]) in names:
            content = (self.root / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.send(200, headers, content, body)
        else:
            self.send(404, {"X-Error-Code": "EntryNotFound"}, b"", body)

    def send_json(self, value: Any, body: bool) -> None:
        headers = {"Content-Type": "application/json"}
        self.send(200, headers, json.dumps(value).encode(), body)

    def send(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing to standard error."""


@pytest.fixture
def stand_in(
    no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[StandInHub]]:
    """A hub on this machine that serves owner/name from a directory."""
    from huggingface_hub import constants

    handler = type("Handler", (StandInHub,), {"root": tmp_path / "served", "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_set_is_resolved_fetched_and_then_left_alone(stand_in: type[StandInHub]) -> None:
    serve(stand_in.root)
    (stand_in.root / "README.md").write_text("card", encoding="utf-8")
    first = load_problems(["hub:owner/name"])
    record = first.provenance[0]
    assert (record["revision"], record["revision_from"]) == (COMMIT, "hub")
    assert record["files"][0]["name"] == "owner/name/data/train-00000-of-00001.parquet"
    assert first.problems[1].answer == "025"
    stand_in.requests.clear()
    again = load_problems(["owner/name"], recorded_revisions=recorded_revisions(first.provenance))
    assert stand_in.requests == []
    assert data_identity(again) == data_identity(first)


def test_what_the_hub_refuses_is_a_user_s_error(stand_in: type[StandInHub]) -> None:
    serve(stand_in.root)
    for source, said in [
        ("hub:owner/other", "no such data set"),
        ("hub:owner/name@nowhere", "no such revision"),
        (f"hub:owner/name@{COMMIT}#data/none.jsonl", "no such file"),
        (f"hub:owner/name@{COMMIT}#dev", "no split or file 'dev'"),
    ]:
        with pytest.raises(UsageError) as raised:
            load_problems([source])
        assert said in str(raised.value)
