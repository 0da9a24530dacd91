"""The protocol: TOML in and out, overrides, and errors that name every fault."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.errors import UsageError
from branchdiag.protocol import Protocol, section_names, validate
from branchdiag.settings_section import is_transport
from branchdiag.training.settings import TrainSettings


def test_the_defaults_are_the_papers() -> None:
    protocol = Protocol.load("paper")
    assert protocol.problems == ("math500:24", "aime2024", "aime2025")
    assert protocol.spine.max_new_tokens == 16384
    assert (protocol.candidates.min_p2, protocol.candidates.min_ratio) == (0.02, 0.10)
    assert (protocol.candidates.spacing_tokens, protocol.candidates.max_per_problem) == (64, 5)
    assert (protocol.dropout.layers, protocol.dropout.probability) == (4, 0.1)
    assert protocol.dropout.samples == 5
    assert (protocol.continuation.rollouts, protocol.continuation.top_p) == (6, 0.95)
    assert protocol.report.resamples == 2000


def test_toml_gives_back_the_same_protocol() -> None:
    for source in ("paper", "bundled"):
        protocol = Protocol.load(source)
        assert validate(tomllib.loads(protocol.to_toml()), where="test") == protocol


@given(st.text(max_size=200))
def test_any_prompt_survives_toml(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    protocol = validate({"spine": {"prompt": prompt}}, where="test")
    assert tomllib.loads(protocol.to_toml())["spine"]["prompt"] == prompt


def test_every_key_has_a_description() -> None:
    for name in section_names():
        section = type(getattr(Protocol(), name))
        for key, field in section.model_fields.items():
            assert field.description, f"{name}.{key}"


def test_overrides_take_toml_values_and_bare_words() -> None:
    protocol = Protocol.load(
        "paper",
        [
            "continuation.rollouts=12",
            "engine.name=vllm",
            "candidates.junk_filter = false",
            'teacher.context="solution"',
            "teacher.prompts.none=Solve {problem}",
            'problems=["a.jsonl"]',
        ],
    )
    assert protocol.continuation.rollouts == 12
    assert protocol.engine.name == "vllm"
    assert protocol.candidates.junk_filter is False
    assert protocol.teacher.context == "solution"
    assert protocol.teacher.prompts.none == "Solve {problem}"
    assert protocol.problems == ("a.jsonl",)


def test_all_faults_are_listed_at_once_with_the_nearest_key() -> None:
    with pytest.raises(UsageError) as error:
        Protocol.load("paper", ["continuation.rollout=12", "candidates.min_p2=7", "dropouts.p=1"])
    text = str(error.value)
    assert "did you mean continuation.rollouts?" in text
    assert "candidates.min_p2" in text
    assert "did you mean dropout?" in text


@pytest.mark.parametrize("override", ["rollouts", "=3", "a..b=1", "name.x=1"])
def test_an_override_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(UsageError):
        Protocol.load("paper", [override])


def test_a_file_takes_its_name_and_bad_files_are_explained(tmp_path: Path) -> None:
    good = tmp_path / "quick.toml"
    good.write_text("[continuation]\nrollouts = 3\n")
    assert Protocol.load(good).name == "quick"
    bad = tmp_path / "bad.toml"
    bad.write_text("[continuation\n")
    with pytest.raises(UsageError, match="no valid TOML"):
        Protocol.load(bad)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        Protocol.load(binary)
    with pytest.raises(UsageError, match="no such protocol"):
        Protocol.load(tmp_path / "none.toml")
    with pytest.raises(UsageError):
        Protocol.load(tmp_path)  # a directory


def test_transport_settings_are_left_out_of_results() -> None:
    one, other = (
        Protocol(),
        Protocol.load("paper", ["engine.batch_size=7", "label.grading_workers=9"]),
    )
    assert one.engine.result_settings() == other.engine.result_settings()
    assert one.label.result_settings() == other.label.result_settings()
    assert is_transport(type(one.engine).model_fields["batch_size"])
    changed = Protocol.load("paper", ["engine.dtype=float32"])
    assert one.engine.result_settings() != changed.engine.result_settings()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("quick.toml", "quick"),
        ("my settings (2).toml", "my-settings-2-"),
        ("_mine.toml", "mine"),
        ("数学.toml", "unnamed"),
    ],
)
def test_a_file_of_any_name_names_its_settings(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text("")
    assert Protocol.load(tmp_path / file).name == name
    assert TrainSettings.load(tmp_path / file).name == name
