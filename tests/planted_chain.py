"""A policy whose success probabilities are known: a first-order Markov chain as a real model.

Writes two model directories (student, teacher), one tokenizer, a problem file and a protocol; the
phases run on them as on any model. Knows no phase and no statistic; what the chain makes true is
worked out in `planted_oracle`, from the tables alone.

A Llama block adds to the residual stream what its attention and its MLP write. Where both write
zero the logits depend on the last token alone, and with one-hot embeddings every row of the
next-token table is a column of the output head. The teacher's attention reads one word more: the
first of its prompt, which says what it was shown, and leans each next token by a number of that
word's. Nothing is approximated but float32.

The chain. A trace chooses a flavour at each depth (the tokens at which branches are forced) and
then works: the work token says whether the trace is still on its way or derailed, by an error rate
that depends on depth and flavour. At the last depth it boxes an answer. A word says everything of
its state:

    start3            the problem; begins at depth 3, so spines differ in length and difficulty
    hard3             the same, but the likelier half is derailed from the start: a wrong spine
    a7 ... e7         a flavour at depth 7, on the way;  da7 ... de7  derailed
    w7, dw7           the work after it: on the way, derailed
    \\boxed{7}         right;  \\boxed{8}  wrong
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAVOURS = "abcde"
CONTEXTS = {"answer": "told", "solution": "shown", "none": "nothing"}
"""Teacher context -> the word that its prompt begins with."""
ANSWER = "7"
RIGHT, WRONG = "\\boxed{7}", "\\boxed{8}"
PADDING, END, UNKNOWN = "<pad>", "<end>", "<unk>"
NOTHING = -80.0
"""Log-probability of what the table has at zero: 1e-35, so that no divergence is infinite."""

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Policy:
    """One side of the chain, by depth (and flavour).

    choice_DF: probability of each flavour. error_DF: chance to derail at the work after it.
    recovery: chance that a derailed trace finds back at a work token. hard_error: chance that a
    hard problem derails at its first token. right: chance of the right box at the end, on the way;
    right_derailed: derailed.
    """

    choice_DF: Table
    error_DF: Table
    recovery: float = 0.06
    hard_error: float = 0.6
    right: float = 0.97
    right_derailed: float = 0.02


@dataclass(frozen=True)
class Chain:
    """The chain as tables. words: token id -> text. student, teacher: [V, V], rows sum to 1; the
    teacher's told the answer. leaning: context -> [V] added to its logits under another one.
    """

    words: tuple[str, ...]
    starts: tuple[str, ...]
    student: Table
    teacher: Table
    leaning: Mapping[str, Table]

    @property
    def ids(self) -> Mapping[str, int]:
        """Text -> token id."""
        return {word: index for index, word in enumerate(self.words)}

    def teacher_under(self, context: str) -> Table:
        """The teacher's table under a context."""
        leant = self.teacher * np.exp(self.leaning.get(context, np.zeros(len(self.words))))
        table: Table = leant / leant.sum(axis=1, keepdims=True)
        return table


def build_chain(
    student: Policy,
    teacher: Policy,
    *,
    first_depths: Sequence[int],
    hard: Sequence[int] = (),
    leaning: Mapping[str, Sequence[float]] | None = None,
) -> Chain:
    """The tables of both sides over one vocabulary; problems begin at the given depths.

    leaning: context -> what it adds to the logit of each flavour, on the way or derailed.
    """
    depths = student.choice_DF.shape[0]
    starts = (*(f"start{k}" for k in first_depths), *(f"hard{k}" for k in hard))
    words = [PADDING, END, UNKNOWN, ANSWER, RIGHT, WRONG, *CONTEXTS.values(), *starts]
    for depth in range(depths):
        for derailed in ("", "d"):
            words += [f"{derailed}{flavour}{depth}" for flavour in FLAVOURS]
            words.append(f"{derailed}w{depth}")
    sides = [_table(policy, words, starts) for policy in (student, teacher)]
    by_flavour = {
        context: dict(zip(FLAVOURS, values, strict=True))
        for context, values in (leaning or {}).items()
    }
    return Chain(
        tuple(words),
        starts,
        sides[0],
        sides[1],
        {
            context: np.array([values.get(_flavour(word), 0.0) for word in words])
            for context, values in by_flavour.items()
        },
    )


def _flavour(word: str) -> str:
    """The flavour a word is of, or nothing."""
    found = re.fullmatch(rf"d?([{FLAVOURS}])\d+", word)
    return found[1] if found else ""


def _table(policy: Policy, words: Sequence[str], starts: Sequence[str]) -> Table:
    ids = {word: index for index, word in enumerate(words)}
    table = np.zeros((len(words), len(words)))
    depths = policy.choice_DF.shape[0]

    def choose(word: str, depth: int, derailed: float) -> None:
        for flavour, chance in zip(FLAVOURS, policy.choice_DF[depth], strict=True):
            table[ids[word], ids[f"{flavour}{depth}"]] += (1.0 - derailed) * chance
            table[ids[word], ids[f"d{flavour}{depth}"]] += derailed * chance

    def box(word: str, right: float) -> None:
        table[ids[word], [ids[RIGHT], ids[WRONG]]] = right, 1.0 - right

    for start in starts:
        hard = start.startswith("hard")
        choose(
            start, int(start.removeprefix("hard").removeprefix("start")), policy.hard_error * hard
        )
    for depth in range(depths):
        good, bad = f"w{depth}", f"dw{depth}"
        for index, flavour in enumerate(FLAVOURS):
            error = policy.error_DF[depth, index]
            table[ids[f"{flavour}{depth}"], [ids[good], ids[bad]]] = 1.0 - error, error
            table[ids[f"d{flavour}{depth}"], [ids[good], ids[bad]]] = (
                policy.recovery,
                1.0 - policy.recovery,
            )
        if depth + 1 < depths:
            choose(good, depth + 1, 0.0)
            choose(bad, depth + 1, 1.0)
        else:
            box(good, policy.right)
            box(bad, policy.right_derailed)
    ends = table.sum(axis=1) == 0
    table[ends, ids[END]] = 1.0
    return table


def write_model(
    directory: Path, words: Sequence[str], table: Table, leaning: Mapping[str, Table] | None = None
) -> Path:
    """A Llama whose next-token distribution after a token is the token's row of the table.

    leaning: context -> [V] added to the logits in a prompt that begins with the context's word;
    None: the model reads no such word.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = _tokenizer(words)
    size = len(words)
    width = size + len(CONTEXTS)  # of the residual stream: a place a token, then one a context
    config = AutoConfig.for_model(
        "llama",
        vocab_size=size,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        # The fourth pair of a head turns by 1e-22 a position: what is there is not rotated.
        rope_parameters={"rope_type": "default", "rope_theta": 1e30},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    logits = np.full((size, size), NOTHING)
    np.log(table, out=logits, where=table > 0)
    one_hot = (1.0 / width + config.rms_norm_eps) ** 0.5  # a norm divides a one-hot vector by it
    held = 1 if leaning is None else 2  # ones in the stream before the last norm
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        block = model.model.layers[0]
        block.input_layernorm.weight.fill_(one_hot)
        block.post_attention_layernorm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, :size] = torch.eye(size)
        model.model.norm.weight.fill_((held / width + config.rms_norm_eps) ** 0.5)
        model.lm_head.weight[:, :size] = torch.from_numpy(logits.T)
        if leaning is not None:
            block.self_attn.q_proj.weight[3] = 300.0  # every token looks for a context's word,
            for place, (context, word) in enumerate(CONTEXTS.items()):
                token = words.index(word)
                block.self_attn.k_proj.weight[3, token] = 1.0  # finds it, with e^-100 elsewhere,
                block.self_attn.v_proj.weight[place, token] = 1.0  # and notes which it is
                block.self_attn.o_proj.weight[size + place, place] = 1.0
                if context in leaning:
                    leant = torch.from_numpy(leaning[context])
                    model.lm_head.weight[:, size + place] = leant
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PADDING, eos_token=END, unk_token=UNKNOWN
    )
    # The last token of a prompt is the problem: it alone says where the chain begins.
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return tokenizer


def write_problems(path: Path, starts: Sequence[str], copies: int) -> Path:
    """As many problems of each start as there are copies, in turn."""
    rows = [
        {"problem_id": f"{start}-{copy:02}", "problem": start, "answer": ANSWER, "solution": ANSWER}
        for copy in range(copies)
        for start in starts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PROTOCOL = """
name = "planted"

[spine]
prompt = "{problem}"
max_new_tokens = 64

[teacher.prompts]
answer = "told {answer} {problem}"
solution = "shown {solution} {problem}"
none = "nothing {problem}"

[candidates]
spacing_tokens = 4
max_per_problem = 6

[dropout]
layers = 1
samples = 2

[continuation]
max_total_tokens = 128

[report]
resamples = 1000
permutations = 400

[engine]
name = "transformers"
device = "cpu"
batch_size = 1024
"""


@dataclass(frozen=True)
class Written:
    """A chain on disk, with what to give the command."""

    chain: Chain
    directory: Path
    teacher: bool

    @property
    def options(self) -> dict[str, str]:
        """Option -> value, of `run-all`."""
        options = {
            "model": str(self.directory / "student"),
            "problems": str(self.directory / "problems.jsonl"),
            "protocol": str(self.directory / "planted.toml"),
        }
        return options | ({"teacher": str(self.directory / "teacher")} if self.teacher else {})


def write_chain(directory: Path, chain: Chain, *, copies: int, extra: str = "") -> Written:
    """Models, problems and protocol; no directory of a teacher where both tables are one.

    extra: further TOML sections.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_model(directory / "student", chain.words, chain.student)
    apart = not np.array_equal(chain.student, chain.teacher)
    if apart:
        write_model(directory / "teacher", chain.words, chain.teacher, chain.leaning)
    write_problems(directory / "problems.jsonl", chain.starts, copies)
    (directory / "planted.toml").write_text(PROTOCOL + extra, encoding="utf-8")
    return Written(chain, directory, apart)
