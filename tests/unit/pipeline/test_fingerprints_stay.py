"""The content that decides Phases A to F is what it was when the first runs were made."""

from __future__ import annotations

import json
from types import SimpleNamespace

from branchdiag.phases import PHASES, stages_of, with_side_stages
from branchdiag.pipeline.fingerprints import contents, dependents, of_other_commands, outdated
from branchdiag.protocol import Protocol
from branchdiag.store.fingerprint import fingerprint

INPUTS = SimpleNamespace(
    student=SimpleNamespace(content_id="s"),
    teacher=SimpleNamespace(content_id="t"),
    data_id="d",
    engine_name="transformers",
)
PLAIN = Protocol.model_validate({"name": "paper"})
OF_THE_FIRST_RUNS = {
    "A": "fp1:d57a9a02297bbcf0c53e5934f70ab00dfff53aa47d0922fd6450ec8dbeaff2c6",
    "B": "fp1:daa909f7a3fe544656bbec8ab25c74d8ed6720654ed6c041b6c2dd293872571d",
    "C": "fp1:b7ec24c923f2cc576fa03382a8860b85a070fb7b6891a4af1dfdc3aed69e25ce",
    "D": "fp1:d7aefe3c3a344e9553f8f15be259a682191afc266f904e92382104c2031ae056",
    "E": "fp1:5c0ae59783f9bdabb787550b390389478bf579dd33729b1d077652cda911ba79",
    "F": "fp1:3d9e5ebbda0e0509b5c5526f8b82e6c778da0781c94d46d941400528fc644062",
}


def made(**changes: object) -> dict[str, dict[str, object]]:
    protocol = Protocol.model_validate({"name": "paper", **changes})
    return contents(protocol, INPUTS, seed=0)


def test_phases_a_to_f_keep_the_fingerprints_of_the_first_runs() -> None:
    now = {letter: fingerprint(made()[letter]) for letter in "ABCDEF"}
    assert now == OF_THE_FIRST_RUNS


def test_a_setting_added_later_counts_where_it_is_not_at_its_default() -> None:
    plain, random = made(), made(candidates={"random_per_problem": 2})
    spines = made(candidates={"spines": "all"})
    assert plain["B"] == random["B"] and plain["C"] != random["C"]
    assert plain["A"] == spines["A"] and plain["B"] != spines["B"] and plain["C"] != spines["C"]


def test_c_to_f_never_read_the_signals_and_g_does() -> None:
    assert dependents("S") == ("S", "G")
    assert all("S" not in PHASES[letter].reads for letter in "ABCDEF")
    assert "S" in dependents("C") and "S" not in dependents("D")
    assert with_side_stages("EFG") == "EFSG" and with_side_stages("AB") == "AB"


def test_a_report_of_other_code_is_made_anew_and_one_of_other_settings_is_a_conflict() -> None:
    wanted = made()
    stored = {letter: {"content": json.loads(json.dumps(c))} for letter, c in wanted.items()}
    assert outdated(stored, wanted) == ()
    stored["G"]["content"]["version"] = 0
    del stored["G"]["content"]["reads"]["S"]
    assert outdated(stored, wanted) == ("G",)
    stored["G"]["content"]["report"]["bins"] = 3
    assert outdated(stored, wanted) == ()
    stored["E"]["content"]["version"] = 0
    assert outdated(stored, wanted) == ()


def test_a_side_stage_keeps_its_settings_when_another_command_runs() -> None:
    then = made(prefixes={"rollouts": 3}, align={"contexts": ["none", "/gone.txt"]})
    stored = {letter: {"content": content} for letter, content in then.items()}
    plain = made()  # run-all again, without what was set for the side stages alone
    assert {"P3", "N4"} <= set(outdated(stored, plain))
    again = contents(PLAIN, INPUTS, 0, of_other_commands(stored, "ABCDEFSG"))
    assert again == then
    assert of_other_commands(stored, stages_of("align")).keys() == {*stages_of("prefixes")}
    stored["P3"]["content"] = {**then["P3"], "version": 0}  # of older code
    older = contents(PLAIN, INPUTS, 0, of_other_commands(stored, "ABCDEFSG"))
    assert outdated(stored, older) == ("P3",)
    changed = Protocol.model_validate({"name": "paper", "continuation": {"rollouts": 3}})
    upstream = contents(changed, INPUTS, 0, of_other_commands(stored, "ABCDEFSG"))
    assert "N4" in outdated(stored, upstream)
