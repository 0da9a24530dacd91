"""Measures the fused loss against the plain one: time and added memory, side by side.

    python tests/bench/bench_fused_loss.py
    python tests/bench/bench_fused_loss.py --tokens 256 --pairs 3

Plain: all logits of both sides in bfloat16, softmaxes in float32, `kl_div`, autograd. The two take
turns, and a ratio is one of neighbours, so that what else the machine does hits both alike. Memory
is measured twice: by torch's record of allocations, and as the growth of the resident set
of a process of its own. Prints a line a figure. No test: `tests/unit/training` holds
that both agree.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from branchdiag.training.accumulation import MicroBatch, batch_totals, plan
from branchdiag.training.fused_loss import fused_loss
from branchdiag.training.objectives import OBJECTIVE_NAMES, make_objective
from branchdiag.training.output_head import OutputHead

TEMPERATURE, CLIP = 1.1, 0.05


class Case:
    """Hidden states and a head in bfloat16, of a trained model's scale, and the two ways."""

    def __init__(self, tokens: int, hidden: int, vocabulary: int, full: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        self.head = (torch.randn(vocabulary, hidden, generator=draw) * 2 / hidden**0.5).bfloat16()
        self.head.requires_grad_(full)
        student = torch.randn(1, tokens, hidden, generator=draw)
        nudge = 0.2 * torch.randn(1, tokens, hidden, generator=draw)
        self.teacher = (student + nudge).bfloat16()
        self.student = student.bfloat16().requires_grad_()
        self.tokens = torch.randint(0, vocabulary, (1, tokens), generator=draw)

    def fused(self, name: str = "opsd") -> tuple[Tensor, Tensor]:
        objective = make_objective(name)
        head = OutputHead(self.head)
        mask = torch.ones(self.tokens.shape, dtype=torch.bool)
        rows = MicroBatch(mask, mask, torch.ones(mask.shape) if name == "pw-opsd" else None)
        [totals] = batch_totals(objective, [rows], step=0)
        sides = self.student, self.teacher, head, head, self.tokens
        loss = fused_loss(objective, plan(objective, rows, totals), *sides).loss
        loss.backward()
        return self.taken(loss)

    def plain(self) -> tuple[Tensor, Tensor]:
        def log_probs(hidden: Tensor) -> Tensor:
            logits = functional.linear(hidden[0], self.head)
            return (logits.float() / TEMPERATURE).log_softmax(-1)

        with torch.no_grad():
            teacher = log_probs(self.teacher)
        terms = functional.kl_div(
            log_probs(self.student), teacher, reduction="none", log_target=True
        )
        loss = terms.clamp(max=CLIP).sum() / self.tokens.numel()
        loss.backward()
        return self.taken(loss)

    def taken(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient to the hidden states; the gradients are cleared."""
        grad = self.student.grad
        assert grad is not None
        self.student.grad = self.head.grad = None
        return loss.detach(), grad.float()


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def recorded_peak(function: Callable[[], object]) -> int:
    """Most bytes that torch held at once while `function` ran."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def resident_growth(case: Case, way: str) -> int:
    """Most bytes that this process's resident set rose by, looked at every 2 ms."""
    process, done = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    getattr(case, way)()
    done.set()
    watcher.join()
    return most - before


def in_own_process(way: str, arguments: list[str]) -> int:
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--resident", way],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def side_by_side(case: Case, label: str, pairs: int, arguments: list[str]) -> None:
    loss, grad = case.fused()
    plain_loss, plain_grad = case.plain()
    difference = float((grad - plain_grad).norm() / plain_grad.norm())
    print(f"{label}: loss {float(loss):.5f} fused, {float(plain_loss):.5f} plain; ", end="")
    print(f"gradients differ by {difference:.1e}")
    times = [(seconds(case.fused), seconds(case.plain)) for _ in range(pairs)]
    ratios = sorted(plain / fused for fused, plain in times)
    fused_s, plain_s = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{label}: time {fused_s:.2f} s fused, {plain_s:.2f} s plain; {pairs} pairs, plain / fused "
        f"{statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    fused, plain = recorded_peak(case.fused), recorded_peak(case.plain)
    print(
        f"{label}: memory added by torch's record {fused / 1e6:.0f} MB fused, "
        f"{plain / 1e6:.0f} MB plain; fused / plain 1/{plain / fused:.1f}"
    )
    fused, plain = (in_own_process(way, arguments) for way in ("fused", "plain"))
    print(
        f"{label}: memory added, resident {fused / 1e6:.0f} MB fused, {plain / 1e6:.0f} MB plain; "
        f"fused / plain 1/{plain / fused:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--skip-full", action="store_true", help="the frozen head alone")
    parser.add_argument("--resident", choices=["fused", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = given.tokens, given.hidden, given.vocabulary
    if given.resident:
        print(resident_growth(Case(*sizes, full=given.full), given.resident))
        return
    print(
        f"{given.tokens} tokens, hidden {given.hidden}, vocabulary {given.vocabulary}, bfloat16, "
        f"{torch.get_num_threads()} threads"
    )
    shape = ["--tokens", "--hidden", "--vocabulary"]
    arguments = [word for pair in zip(shape, map(str, sizes), strict=True) for word in pair]
    frozen = Case(*sizes, full=False)
    side_by_side(frozen, "frozen head (LoRA)", given.pairs, arguments)
    if not given.skip_full:
        case = Case(*sizes, full=True)
        side_by_side(case, "trained head (full)", given.pairs, [*arguments, "--full"])
        del case
    for name in OBJECTIVE_NAMES:
        if make_objective(name).statistics_of == "nothing":
            times = [seconds(lambda name=name: frozen.fused(name)) for _ in range(2)]
            print(f"{name}, frozen head: {min(times):.2f} s fused")


if __name__ == "__main__":
    main()
