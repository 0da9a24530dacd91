"""Several processes as one: who this one is, and the sums it takes with the others.

Wraps accelerate's view of the launcher (`accelerate launch`, `torchrun`, or nothing). The trained
weights are the same in every process; gradients are added once a step, explicitly, so no wrapper
stands between the trainer and its model. Knows no objective and no file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from branchdiag.adapters import needs_training_packages
from branchdiag.errors import UsageError
from branchdiag.training.objectives.base import MicroBatch, TokenStatistics

T = TypeVar("T")

BUCKET_ELEMENTS = 2**26
"""Of the gradients that are added in one message: 256 MiB in float32."""


class Processes:
    """This process among all.

    Args:
        device: auto | cpu | cuda | cuda:N; with several processes each takes its own GPU.

    Raises:
        MissingRequirement: accelerate is not installed, or no such device.
        UsageError: no such kind of device.
    """

    def __init__(self, device: str) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise needs_training_packages(error) from error
        from branchdiag.models import resolve_device

        wanted = resolve_device(device, "compute.device")
        self._state: Any = PartialState(cpu=wanted == "cpu")
        self.rank = int(self._state.process_index)
        self.count = int(self._state.num_processes)
        self.is_main = self.rank == 0
        several = self.count > 1 and wanted != "cpu"
        self.device = torch.device(self._state.device if several else wanted)

    def share(self, rows: Sequence[T]) -> tuple[int, Sequence[T]]:
        """This process's part of a global batch: the number of its first row, and its rows.

        Raises:
            UsageError: fewer rows than processes.
        """
        if len(rows) < self.count:
            raise UsageError(
                f"a batch of {len(rows)} cannot be divided over {self.count} processes",
                where="optimizer.batch_size",
                fix="a larger batch, or fewer processes",
            )
        start, stop = (len(rows) * part // self.count for part in (self.rank, self.rank + 1))
        return start, rows[start:stop]

    def gather(self, own: T) -> list[T]:
        """One (picklable) object of each process, in the order of ranks, in every process."""
        if self.count == 1:
            return [own]
        from accelerate.utils import gather_object

        return list(gather_object([own]))

    def gather_micro_batches(self, own: list[MicroBatch]) -> list[MicroBatch]:
        """Micro-batches of all processes, this one's first and unchanged."""
        if self.count == 1:
            return own
        everyone = self.gather([_on_cpu(rows) for rows in own])
        others = [rows for rank, part in enumerate(everyone) if rank != self.rank for rows in part]
        return own + others

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by the sum over processes. A missing one counts as 0."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        for bucket in _buckets(parameters):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat: Tensor = reduce(torch.cat([g.flatten() for g in gradients]), "sum")
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
                parameter.grad = gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Until every process is here."""
        self._state.wait_for_everyone()

    def local_count(self) -> int:
        """Processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.count))

    def close(self) -> None:
        """Leave the group; without this the process is aborted when it ends."""
        if self.count > 1:
            self._state.destroy_process_group()


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters whose gradients are sent together: few messages, and no second copy of all."""
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def _on_cpu(rows: MicroBatch) -> MicroBatch:
    statistics = rows.statistics
    if statistics is not None:
        columns = {
            field.name: getattr(statistics, field.name).cpu()
            for field in dataclasses.fields(statistics)
        }
        statistics = TokenStatistics(**columns)
    weights_BT = None if rows.weights_BT is None else rows.weights_BT.cpu()
    return MicroBatch(rows.valid_BT.cpu(), rows.trained_BT.cpu(), weights_BT, statistics)
