"""What users get wrong ends with a sentence, a place and a remedy; never with a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from branchdiag.bundled import model_path, problems_path
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL

OFFLINE = {"HF_HUB_OFFLINE": "1"}


def refused(ended: Ended, status: int, *words: str) -> None:
    assert ended.status == status, ended.out + ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    for word in words:
        assert word in ended.err, ended.err


def some_problems(path: Path, n: int, **changes: str) -> Path:
    lines = problems_path("diagnose").read_text().splitlines()[:n]
    rows = [json.loads(line) | changes for line in lines]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--model=./nowhere"], 2, ["no such model directory", "nowhere"]),
        (["--model=Qwen/Qwen3-4B"], 5, ["Qwen/Qwen3-4B", "fix"]),
        (["--model=a/b/c"], 2, ["a/b/c"]),
        (["--problems=none.jsonl"], 2, ["none.jsonl"]),
        (["--problems=math501"], 2, ["math501"]),
        (["--problems=math500:24"], 5, ["--problems"]),
        (["--protocol=none.toml"], 2, ["no such protocol"]),
        (["--set=continuation.rollout=3"], 2, ["did you mean continuation.rollouts"]),
        (["--set=continuation.rollouts=-3"], 2, ["continuation.rollouts"]),
        (["--set=rollouts"], 2, ["section.key=value"]),
        (["--set=teacher.context=answr"], 2, ["answr"]),
        (["--set=dropout.layers=99"], 2, ["dropout.layers"]),
        (["--engine=vllm"], 5, ["vllm"]),
        (["--engine=tensorrt"], 2, ["tensorrt"]),
        (["--limit=0"], 2, ["limit"]),
        (["--restart-from=H"], 2, ["no phase"]),
        (["--no-such-option"], 2, ["--no-such-option"]),
        (["--out=/proc/branchdiag"], 5, ["/proc/branchdiag"]),
    ],
)
def test_a_wrong_option_is_explained(
    tmp_path: Path, arguments: list[str], status: int, words: list[str]
) -> None:
    if "--engine=vllm" in arguments and shutil.which("nvidia-smi"):
        pytest.skip("vLLM may run here")
    base = [a for a in SMALL if not (a.startswith("--limit") and "--limit=0" in arguments)]
    refused(
        branchdiag("run-all", *base, "--progress=none", *arguments, cwd=tmp_path, env=OFFLINE),
        status,
        *words,
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no problems"]),
        ("not json\n", ["row 1", "JSON"]),
        ('{"problem": "1 + 1?"}\n{"problem": "", "answer": "2"}\n', ["row 1", "row 2", "answer"]),
        ("[1, 2]\n", ["row 1", "list"]),
    ],
)
def test_bad_problem_files_name_file_row_and_field(
    tmp_path: Path, content: str, words: list[str]
) -> None:
    (tmp_path / "mine.jsonl").write_text(content)
    ended = branchdiag("run-all", "--problems=mine.jsonl", cwd=tmp_path)
    refused(ended, 2, "mine.jsonl", *words)
    assert not (tmp_path / "runs").exists()  # nothing is begun before the input is sound


def test_a_bad_protocol_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[continuation]\nrollouts = 'six'\nrolouts = 2\n")
    ended = branchdiag("run-all", "--protocol=mine.toml", cwd=tmp_path)
    refused(ended, 2, "continuation.rollouts", "did you mean")


def test_a_model_without_a_chat_template_or_weights_is_explained(tmp_path: Path) -> None:
    for name, text in (
        ("chat_template.jinja", "chat template"),
        ("model.safetensors", "safetensors"),
        ("config.json", "config.json"),
    ):
        copy = tmp_path / name.replace(".", "_")
        shutil.copytree(model_path(), copy)
        (copy / name).unlink(missing_ok=True)
        if name == "chat_template.jinja":
            config = json.loads((copy / "tokenizer_config.json").read_text())
            config.pop("chat_template", None)
            (copy / "tokenizer_config.json").write_text(json.dumps(config))
        ended = branchdiag("run-all", *SMALL, f"--model={copy}", "--problems=bundled", cwd=tmp_path)
        assert ended.status in (2, 5), ended.err
        assert "Traceback" not in ended.err
        assert text in ended.err


def test_a_file_where_the_run_should_be_and_a_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(branchdiag("run-all", *SMALL, "--out=file", cwd=tmp_path), 2, "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    refused(branchdiag("run-all", *SMALL, "--out=folder", cwd=tmp_path), 2, "holds files")
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_looking_at_what_is_not_there(tmp_path: Path, finished_run: Path) -> None:
    for command in ("status", "report", "verify"):
        refused(branchdiag(command, cwd=tmp_path), 2, "no run")
        refused(branchdiag(command, "nowhere", cwd=tmp_path), 2, "nowhere")
    ended = branchdiag("inspect", "no@1", "--run=run", cwd=finished_run.parent)
    refused(ended, 2, "for example")


def test_no_correct_spine_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    some_problems(tmp_path / "wrong.jsonl", 6, answer="123456789")
    ended = branchdiag(
        *("run-all", *SMALL[1:], "--problems=wrong.jsonl", "--out=run"),
        *("--json", "--progress=none"),
        cwd=tmp_path,
    )
    assert ended.status == 0, ended.err
    document = ended.json
    assert document["counts"]["correct_spines"] == 0
    assert document["counts"]["candidates"] == 0
    assert document["finding_status"] == "too_few"
    assert all(entry["auroc"] is None and entry["reason"] for entry in document["scores"])
    assert (tmp_path / "run" / "report.html").is_file()


def test_one_class_only_is_missing_with_its_reason(tmp_path: Path) -> None:
    # A share of 0.01 of one sample: whatever the branches come to, none is real-uncertain.
    ended = branchdiag(
        *("run-all", *SMALL, "--set=label.uncertain_share=0.01", "--set=continuation.rollouts=1"),
        *("--set=label.diversity_share=0.01", "--out=run", "--json", "--progress=none"),
        *("--set=label.diversity_children=1",),
        cwd=tmp_path,
    )
    assert ended.status == 0, ended.err
    counts = ended.json["counts"]
    if min(counts["diversity"], counts["real_uncertain"]) == 0:
        assert all(entry["auroc"] is None for entry in ended.json["scores"])
    for entry in ended.json["scores"]:
        assert entry["auroc"] is not None or entry["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_explained_and_the_run_goes_on_after(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let a test mount a small disk")
    try:
        command = ("run-all", *SMALL, "--out=disk/run", "--progress=none")
        refused(branchdiag(*command, cwd=tmp_path), 5, "disk/run", "fix")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        ended = branchdiag(*command, cwd=tmp_path)
        assert ended.status == 0, ended.err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_help_is_quick_to_import_and_heavy_packages_stay_out() -> None:
    script = (
        "import sys\n"
        "from branchdiag.cli.main import call\n"
        "status = call(['--help'])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'numpy', 'pyarrow', 'pydantic',\n"
        "         'matplotlib', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(status or len(heavy))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
