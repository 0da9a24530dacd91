"""Names, files and tokenizers of models; every way in which they can be wrong."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from branchdiag import model_files, models
from branchdiag.errors import BranchdiagError, MissingRequirement, UsageError
from branchdiag.models import ModelReference
from branchdiag.protocol import EngineSettings
from tests.tiny_models import ARCHITECTURES, END_OF_TEXT, TURN_END, tiny_model, tiny_tokenizer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model's directory that the test may damage."""
    return Path(shutil.copytree(tiny_model("qwen3"), tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


# Names


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B", None),
        ("Qwen/Qwen3-4B@main", "Qwen/Qwen3-4B", "main"),
        (" Qwen/Qwen3-4B@0123abc ", "Qwen/Qwen3-4B", "0123abc"),
        ("gpt2", "gpt2", None),
    ],
)
def test_hub_names_may_carry_a_revision(text: str, name: str, revision: str | None) -> None:
    assert ModelReference.parse(text) == ModelReference(name, revision, local=False)
    assert str(ModelReference.parse(text)) == text.strip()


def test_a_directory_that_exists_is_a_path_even_with_an_at_sign(tmp_path: Path) -> None:
    place = tmp_path / "model@home"
    place.mkdir()
    assert ModelReference.parse(str(place)) == ModelReference(str(place), None, local=True)
    assert ModelReference.parse("./nowhere").local


@pytest.mark.parametrize("text", ["", "  ", "@main", "Qwen/Qwen3-4B@"])
def test_names_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ModelReference.parse(text)


def test_a_revision_of_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no revision"):
        ModelReference.parse(f"{tmp_path}@main")


# Resolution


def test_a_directory_resolves_to_itself(directory: Path) -> None:
    resolved = models.resolve(str(directory))
    assert resolved.directory == directory.resolve()
    assert resolved.name == str(directory) and resolved.revision is None
    assert models.ResolvedModel.from_dict(resolved.to_dict()) == resolved


def test_the_identity_is_of_the_content_and_not_of_the_place(
    directory: Path, tmp_path: Path
) -> None:
    before = models.resolve(str(directory)).content_id
    moved = shutil.copytree(directory, tmp_path / "elsewhere")
    (moved / "README.md").write_text("a card")
    (moved / ".cache").mkdir()
    assert models.resolve(str(moved)).content_id == before


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"]
)
def test_a_changed_text_file_changes_the_identity(directory: Path, name: str) -> None:
    before = models.resolve(str(directory)).content_id
    with (directory / name).open("a") as file:
        file.write("\n")
    assert models.resolve(str(directory)).content_id != before


@pytest.mark.parametrize("whole_file_bytes", [2**30, 0])
def test_a_changed_weight_changes_the_identity(
    directory: Path, monkeypatch: pytest.MonkeyPatch, whole_file_bytes: int
) -> None:
    monkeypatch.setattr(model_files, "WHOLE_FILE_BYTES", whole_file_bytes)
    before = models.resolve(str(directory)).content_id
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    entry = json.loads(content[8 : 8 + length])["model.layers.2.mlp.up_proj.weight"]
    content[8 + length + entry["data_offsets"][0]] ^= 1
    path.write_bytes(content)
    assert models.resolve(str(directory)).content_id != before


def test_an_unreachable_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingRequirement) as raised:
        models.resolve("nobody-we-know/no-such-model@abc")
    assert raised.value.exit_status == 5
    assert "cannot be reached" in str(raised.value) and "directory" in str(raised.value)
    assert raised.value.where == "nobody-we-know/no-such-model@abc"


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingRequirement, match="HF_HUB_OFFLINE is set"):
        models.resolve("nobody-we-know/no-such-model")


@pytest.mark.parametrize("name", ["a/b/c", "not a name", "no-such-directory/../x"])
def test_a_name_that_can_be_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="neither a directory"):
        models.resolve(name)


def test_a_recorded_hub_model_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    recorded = models.ResolvedModel(
        "nobody/model@main", str(tiny_model("qwen3")), "c0ffee", "nobody/model@c0ffee"
    )
    assert models.resolve("nobody/model@main", recorded=recorded) == recorded
    with pytest.raises(AssertionError):
        models.resolve("nobody/other@main", recorded=recorded)


def test_a_snapshot_gives_its_commit_as_revision_and_identity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, Any]] = []

    def download(name: str, *, revision: str | None, **_: Any) -> str:
        asked.append((name, revision))
        return str(shutil.copytree(tiny_model("qwen3"), tmp_path / "snapshots" / "c0ffee"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolved = models.resolve("nobody/model@main")
    assert asked == [("nobody/model", "main")]
    assert (resolved.revision, resolved.content_id) == ("c0ffee", "nobody/model@c0ffee")
    gone = models.ResolvedModel("nobody/model@main", str(tmp_path / "gone"), "c0ffee", "x")
    shutil.rmtree(tmp_path / "snapshots")
    models.resolve("nobody/model@main", recorded=gone)
    assert asked[-1] == ("nobody/model", "c0ffee")  # the commit, not what main is by now


# Broken directories


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(text) and None


def cut_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_weights(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def lose_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "config.json is missing"),
        (write("config.json", "{"), "config.json cannot be read"),
        (write("config.json", "[]"), "no JSON object"),
        (write("config.json", "{}"), "model_type"),
        (remove("model.safetensors"), "no safetensors weights"),
        (pickle_weights, "only pytorch_model.bin"),
        (cut_weights, "cut off or damaged"),
        (write("model.safetensors", "nonsense"), "cut off or damaged"),
        (write("model.safetensors", ""), "cut off or damaged"),
        (lose_shard, "1 of 2 weight files are missing"),
        (remove("chat_template.jinja"), "no chat template"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_directory_is_a_clear_error(
    directory: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(directory)
    with pytest.raises(BranchdiagError, match=message) as raised:
        models.resolve(str(directory))
    assert raised.value.where and str(directory) in raised.value.where


def test_a_file_or_nothing_is_no_model_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a directory"):
        models.resolve(str(tmp_path / "file"))
    with pytest.raises(UsageError, match="no such model directory"):
        models.resolve(str(tmp_path / "nothing"))


def test_an_architecture_that_transformers_does_not_know_is_said_so(directory: Path) -> None:
    edit_json(directory / "config.json", model_type="qwen99")
    resolved = models.resolve(str(directory))
    with pytest.raises(MissingRequirement, match="qwen99"):
        models.load_model(resolved, EngineSettings(), "cpu")


def test_code_that_a_model_ships_does_not_run_unasked(directory: Path) -> None:
    edit_json(
        directory / "config.json",
        model_type="homemade",
        auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    )
    (directory / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UsageError) as raised:
        models.load_model(models.resolve(str(directory)), EngineSettings(), "cpu")
    assert "engine.trust_remote_code=true" in str(raised.value)


def test_weights_that_the_configuration_asks_for_and_the_files_lack_are_an_error(
    directory: Path,
) -> None:
    edit_json(directory / "config.json", num_hidden_layers=5, layer_types=None)
    with pytest.raises(UsageError, match="do not fit the configuration"):
        models.load_model(models.resolve(str(directory)), EngineSettings(), "cpu")


def test_a_broken_tokenizer_is_a_clear_error(directory: Path) -> None:
    (directory / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(BranchdiagError, match="tokenizer cannot be loaded"):
        models.load_tokenizer(models.resolve(str(directory)))


# Loading


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_loads_ready_to_score(architecture: Any) -> None:
    resolved = models.resolve(str(tiny_model(architecture)))
    model = models.load_model(resolved, EngineSettings(), "cpu")
    assert not model.training and model.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())
    half = models.load_model(resolved, EngineSettings(dtype="bfloat16", attention="eager"), "cpu")
    assert half.dtype == torch.bfloat16 and half.config._attn_implementation == "eager"


def test_a_device_that_is_not_there_or_no_device_is_refused() -> None:
    assert models.resolve_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="no device"):
        models.resolve_device("tpu")
    with pytest.raises(MissingRequirement, match="cuda:63"):
        models.resolve_device("cuda:63")


def test_stop_ids_are_those_of_the_generation_configuration_and_the_tokenizer(
    directory: Path,
) -> None:
    resolved = models.resolve(str(directory))
    tokenizer = models.load_tokenizer(resolved)
    end, turn = (tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TEXT, TURN_END))
    assert models.stop_token_ids(resolved, tokenizer) == tuple(sorted((end, turn)))
    edit_json(directory / "generation_config.json", eos_token_id=7)
    assert models.stop_token_ids(resolved, tokenizer) == (7, turn)
    (directory / "generation_config.json").unlink()
    assert models.stop_token_ids(resolved, tokenizer) == (turn,)


def test_context_length_and_size_are_read_without_the_model(directory: Path) -> None:
    resolved = models.resolve(str(directory))
    assert models.context_length(resolved) == 512
    model = models.load_model(resolved, EngineSettings(), "cpu")
    size = models.estimate(resolved)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.weight_bytes == 4 * size.parameters
    assert size.vocabulary_size == model.config.vocab_size and size.layers == 4
    cache = model(torch.arange(10)[None], use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert size.cache_bytes_per_token * 10 == held
    assert models.estimate(resolved, "bfloat16").weight_bytes == 2 * size.parameters
    edit_json(directory / "config.json", max_position_embeddings=None)
    with pytest.raises(UsageError, match="context length"):
        models.context_length(resolved)


# Tokenizers


def test_equal_tokenizers_pass_whatever_their_templates() -> None:
    models.check_same_tokenizer(tiny_tokenizer(), tiny_tokenizer(thinking="force", pad="eos"))


def test_a_token_of_another_id_is_named() -> None:
    other = tiny_tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(UsageError, match="token '<new>' is None in the student's"):
        models.check_same_tokenizer(tiny_tokenizer(), other)


def test_equal_vocabularies_that_split_differently_are_refused() -> None:
    other = tiny_tokenizer()
    backend = json.loads(other.backend_tokenizer.to_str())
    backend["model"]["merges"] = backend["model"]["merges"][::-1]
    other._tokenizer = type(other.backend_tokenizer).from_str(json.dumps(backend))
    assert other.get_vocab() == tiny_tokenizer().get_vocab()
    with pytest.raises(UsageError, match="split"):
        models.check_same_tokenizer(tiny_tokenizer(), other)
