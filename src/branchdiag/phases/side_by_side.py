"""The same call on many things that do not depend on each other, a process a core, in order.

A model so small that threads only wait for each other leaves all cores but one without work, and so
do figures. Such calls run in forked processes, as decoding does (`engines.workers`). Each is the
same call on the same numbers wherever it runs, and results come in the order of the tasks: a table
or file does not show how many processes made it. Knows no phase, no table and no model by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

SLICES = 4
"""Times that a process asks for more: often enough to end together, seldom enough not to wait."""
LARGEST_SLICE = 8
WORTH_FORKING = 16


def in_order(
    measure: Callable[[Task], Result], tasks: Sequence[Task], models: Sequence[Any] = ()
) -> Iterator[Result]:
    """`measure` of each task, in their order.

    Args:
        measure: keeps nothing that a later task would need.
        tasks: what it is called with. A tokenizer has no place in it: it may not be used on both
            sides of a fork.
        models: those that it runs, loaded.

    Raises:
        BranchdiagError: as raised by `measure`, or where a process was killed.
    """
    from branchdiag.engines.workers import can_fork, run_forked, usable_cores
    from branchdiag.model_loading import is_small_on_cpu

    n_workers = usable_cores() if can_fork() and all(map(is_small_on_cpu, models)) else 1
    if n_workers == 1 or len(tasks) < WORTH_FORKING:
        yield from map(measure, tasks)
        return
    step = min(LARGEST_SLICE, max(1, len(tasks) // (SLICES * n_workers)))

    def work(start: int) -> Iterator[list[Any]]:
        for index, task in enumerate(tasks[start : start + step], start=start):
            yield [(index, measure(task))]

    ready: dict[int, Result] = {}
    following = 0
    batches: Iterator[Any] = run_forked(range(0, len(tasks), step), work, n_workers)
    for found in batches:
        ready.update(found)
        while following in ready:
            yield ready.pop(following)
            following += 1
