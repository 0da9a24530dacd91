"""PW-OPSD: OPSD with a weight for a token's place in its rollout (arXiv 2605.21606, eq. 5 and 6).

Reads a schedule's weights as a tensor; knows not how they were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from branchdiag.training.objectives.base import MicroBatch, Reduction
from branchdiag.training.objectives.opsd import OPSD


@dataclass(frozen=True)
class PWOPSD(OPSD):
    """OPSD's clipped divergence, discounted where the teacher is less to be trusted.

    Per token: OPSD's l. Weight: the schedule's, as given; it is not scaled to a mean of 1, so a
    schedule also lowers the size of the step. Reduction: mean over a row's valid tokens, then over
    the rows that have any, so that a short rollout weighs as much as a long one. With weight 1
    and the reduction `token` this is OPSD.
    """

    name: ClassVar[str] = "pw-opsd"
    takes_schedule: ClassVar[bool] = True
    default_reduction: ClassVar[Reduction] = "sequence"

    def token_weights(self, rows: MicroBatch) -> Tensor:
        """The schedule's weights."""
        self.check_schedule(rows.weights_BT is not None)
        assert rows.weights_BT is not None
        return rows.weights_BT.detach().to(rows.valid_BT.device, torch.float64)
