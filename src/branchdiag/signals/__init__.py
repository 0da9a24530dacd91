"""Control signals that papers steer distillation with, each a small function of a position.

Importing this registers them all: a new one is a function in one of these modules (or a module
named here) and needs no other change to become a column of the table `signals` and a row of the
leaderboard. Loads no torch.
"""

from branchdiag.signals import accumulated, divergences, local
from branchdiag.signals.base import SIGNALS, Signal, SpineLogprobs, View, signal

__all__ = [
    "SIGNALS",
    "Signal",
    "SpineLogprobs",
    "View",
    "accumulated",
    "divergences",
    "local",
    "signal",
]
