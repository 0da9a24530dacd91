"""A schedule: the weight of each token as a function of where it stands among the valid ones.

    weights = branchdiag.Schedule.load("fitted.json").weights(completion_mask)

The weight of PW-OPSD (arXiv 2605.21606, equations 5 and 6), its mirror for a teacher that is worse
late, and weight 1 everywhere. Reads a mask and gives weights of the same kind (NumPy or torch);
reads and writes the JSON file that is described in `schedule_schema.json` beside this module. Knows
nothing of how a schedule was fitted, of losses or of models, and loads neither NumPy nor torch
before a mask is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from branchdiag.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

Direction = Literal["increasing", "decreasing", "none"]

FORMAT = "branchdiag.schedule"
VERSION = 1
SMALLEST_SCALE = 1e-6
"""A scale below this counts as this, so that a step is a step and not a division by zero."""

PRESETS: Mapping[str, tuple[float, float, float]] = {
    "mild": (0.50, 0.20, 0.20),
    "moderate": (0.25, 0.30, 0.10),
    "sharp": (0.10, 0.40, 0.05),
    "aggressive": (0.05, 0.50, 0.05),
}
"""w_min, tau and s of the schedules of arXiv 2605.21606; `moderate` is its default."""

DIRECTIONS: tuple[Direction, ...] = ("increasing", "decreasing", "none")
LIMITS = {"w_min": (0.0, 1.0), "tau": (-1.0, 2.0), "s": (0.0, 10.0)}
_SHAPE_KEYS = ("w_min", "tau", "s", "direction")


@dataclass(frozen=True)
class Schedule:
    """w(r) = w_min + (1 - w_min) sigmoid((r - tau) / s), or its mirror sigmoid((tau - r) / s).

    w_min: weight far below the transition (above it, where decreasing), 0 to 1.
    tau: relative position of the middle of the transition. s: its scale; from a quarter to three
    quarters of the change takes 2.197 s. Both are None where the weight is 1 everywhere.
    direction: increasing (late tokens count fully), decreasing (early ones do) or none.
    provenance: everything else that the file says: where the schedule comes from, the fit's status
    and band, the model. It takes no part in comparisons.

    Raises:
        UsageError: a number is missing, not finite or out of its range.
    """

    w_min: float
    tau: float | None
    s: float | None
    direction: Direction = "increasing"
    provenance: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("w_min", "tau", "s"):
            _check_number(name, getattr(self, name), may_be_missing=name != "w_min")
        if self.direction not in DIRECTIONS:
            raise UsageError(
                f"a schedule has no direction {self.direction!r}",
                where="direction",
                fix="one of " + ", ".join(DIRECTIONS),
            )
        if (self.tau is None) != (self.s is None):
            raise UsageError(
                "a schedule has both tau and s or neither",
                where="tau, s",
                fix="give both, or leave out both and set w_min to 1",
            )
        if self.tau is None and self.w_min != 1.0:
            raise UsageError(
                f"without tau and s the weight is 1 everywhere, but w_min is {self.w_min}",
                where="w_min",
                fix="set w_min to 1, or give tau and s",
            )
        if self.tau is not None and self.direction == "none":
            raise UsageError(
                "a schedule with tau and s either rises or falls",
                where="direction",
                fix="increasing or decreasing",
            )

    @staticmethod
    def uniform() -> Schedule:
        """Weight 1 at every valid token."""
        return Schedule(1.0, None, None, "none", {"origin": "uniform"})

    @staticmethod
    def preset(name: str) -> Schedule:
        """A published schedule: mild, moderate, sharp or aggressive (arXiv 2605.21606).

        Raises:
            UsageError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise UsageError(
                f"there is no preset {name!r}", where="preset", fix="one of " + ", ".join(PRESETS)
            )
        w_min, tau, s = PRESETS[name]
        says = {
            "origin": "preset",
            "preset": name,
            "status": None,
            "reason": f"the published schedule {name}, taken knowingly: not fitted to any data",
        }
        return Schedule(w_min, tau, s, "increasing", says)

    @staticmethod
    def load(path: str | Path) -> Schedule:
        """Read a schedule from JSON, as `save` and `branchdiag fit-schedule` write it.

        Raises:
            UsageError: no such file, not JSON, another version, a key missing or out of range.
        """
        file = Path(path)
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"the schedule cannot be read ({error.strerror or error})",
                where=str(file),
                fix="branchdiag fit-schedule --out FILE writes one; presets: " + ", ".join(PRESETS),
            ) from error
        except ValueError as error:
            raise UsageError(
                f"the schedule is not JSON ({error})",
                where=str(file),
                fix="branchdiag fit-schedule --out FILE writes one",
            ) from error
        return Schedule.from_document(document, where=str(file))

    @staticmethod
    def from_document(document: Any, *, where: str = "schedule") -> Schedule:
        """The schedule that a JSON document describes.

        Args:
            document: what `json.load` gave.
            where: named in errors, such as the file.

        Raises:
            UsageError: as `load`.
        """
        if not isinstance(document, dict) or document.get("schema") != FORMAT:
            raise UsageError(
                "this is no schedule",
                where=where,
                fix=f'a schedule is a JSON object with "schema": "{FORMAT}"',
            )
        if document.get("version") != VERSION:
            raise UsageError(
                f"this schedule has version {document.get('version')!r}; this is known: {VERSION}",
                where=where,
                fix="fit it again, or use the branchdiag that wrote it",
            )
        absent = [key for key in _SHAPE_KEYS if key not in document]
        if absent:
            raise UsageError(
                "the schedule lacks " + ", ".join(absent),
                where=where,
                fix="w_min, tau, s and direction belong to every schedule (tau and s may be null)",
            )
        _check_model(document.get("model"), where)
        rest = {k: v for k, v in document.items() if k not in (*_SHAPE_KEYS, "schema", "version")}
        try:
            return Schedule(
                w_min=document["w_min"],
                tau=document["tau"],
                s=document["s"],
                direction=document["direction"],
                provenance=rest or None,
            )
        except UsageError as error:
            raise UsageError(error.what, where=f"{where}: {error.where}", fix=error.fix) from error

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document: what `load` reads back without loss."""
        shape = {key: getattr(self, key) for key in _SHAPE_KEYS}
        rest = {"origin": "user"} if self.provenance is None else dict(self.provenance)
        return {"schema": FORMAT, "version": VERSION, **shape, **rest}

    def save(self, path: str | Path) -> None:
        """Write the JSON document, whole or not at all.

        Raises:
            StorageError: the disk will not take it.
        """
        from branchdiag.store.atomic import write_json

        write_json(Path(path), self.document)

    @property
    def is_uniform(self) -> bool:
        """Whether every valid token has weight 1."""
        return self.tau is None or self.w_min == 1.0

    def curve(self, r: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The weight at relative positions r, of any shape, in float64."""
        import numpy as np

        position = np.asarray(r, dtype=np.float64)
        if self.tau is None or self.s is None:
            return np.ones_like(position)
        z = (position - self.tau) / max(self.s, SMALLEST_SCALE)
        z = -z if self.direction == "decreasing" else z
        # exp of a number that is never positive: no overflow however sharp the transition.
        curve: npt.NDArray[np.float64] = self.w_min + (1.0 - self.w_min) * np.exp(
            -np.logaddexp(0.0, -z)
        )
        return curve

    @overload
    def weights(self, mask: npt.NDArray[Any], *, dtype: Any = None) -> npt.NDArray[Any]: ...
    @overload
    def weights(self, mask: torch.Tensor, *, dtype: Any = None) -> torch.Tensor: ...

    def weights(self, mask: Any, *, dtype: Any = None) -> Any:
        """The weight of each token, for any trainer: multiply the token losses by it.

        r = (t - 0.5) / L, with t the token's place among the valid tokens of its row, from 1, and L
        their number; holes in the mask are passed over. Invalid tokens weigh 0, so a row without
        valid tokens is all 0. Not renormalised: the mean weight of a row is below 1, as published.

        Args:
            mask: (batch, tokens), NumPy or torch on any device; valid where not 0.
            dtype: of the weights; by default the mask's if that is floating, else float64 for NumPy
                and torch's default for torch.

        Returns:
            (batch, tokens) weights of the mask's kind, on its device.

        Raises:
            UsageError: the mask is neither an array nor a tensor, or has not two dimensions.
        """
        if len(getattr(mask, "shape", ())) != 2:
            raise UsageError(
                "a mask has two dimensions (batch, tokens), not the shape "
                f"{tuple(getattr(mask, 'shape', ()))} of a {type(mask).__name__}",
                where="mask",
                fix="give a NumPy array or a torch tensor; mask[None] makes a batch of one row",
            )
        if type(mask).__module__.partition(".")[0] == "numpy":
            return self._numpy_weights(mask, dtype)
        return self._torch_weights(mask, dtype)

    def _numpy_weights(self, mask: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
        import numpy as np

        valid = mask != 0
        length = np.maximum(valid.sum(axis=1, keepdims=True), 1)
        weights = np.where(valid, self.curve((np.cumsum(valid, axis=1) - 0.5) / length), 0.0)
        if dtype is None:
            dtype = mask.dtype if np.issubdtype(mask.dtype, np.floating) else np.float64
        return weights.astype(dtype)

    def _torch_weights(self, mask: Any, dtype: Any) -> Any:
        import torch

        if not isinstance(mask, torch.Tensor):
            raise UsageError(
                f"a mask is a NumPy array or a torch tensor, not a {type(mask).__name__}",
                where="mask",
                fix="np.asarray(mask) or torch.as_tensor(mask)",
            )
        if dtype is None:
            dtype = mask.dtype if mask.is_floating_point() else torch.get_default_dtype()
        valid = mask != 0
        if self.tau is None or self.s is None:
            return valid.to(dtype)
        # Places above 256 are not whole in bfloat16: compute in the widest type the device has.
        exact = torch.float32 if mask.device.type == "mps" else torch.float64
        length = valid.sum(dim=1, keepdim=True).clamp(min=1)
        r = (valid.cumsum(dim=1).to(exact) - 0.5) / length
        z = (r - self.tau) / max(self.s, SMALLEST_SCALE)
        z = -z if self.direction == "decreasing" else z
        weights = self.w_min + (1.0 - self.w_min) * torch.sigmoid(z)
        return torch.where(valid, weights, torch.zeros_like(weights)).to(dtype)


def _check_model(model: Any, where: str) -> None:
    """What a file says of the model that it was fitted to: an object with names, or nothing."""
    texts = ("name", "revision", "content_id")
    if model is None:
        return
    if not isinstance(model, dict) or any(
        not isinstance(model.get(key), str | None) for key in texts
    ):
        raise UsageError(
            f"model is {model!r}",
            where=f"{where}: model",
            fix="an object with name, revision and content_id as texts, null, or no such key",
        )


def _check_number(name: str, value: Any, *, may_be_missing: bool) -> None:
    if value is None and may_be_missing:
        return
    low, high = LIMITS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(cast(float, value)) or not low <= value <= high:
        raise UsageError(
            f"{name} is {value!r}", where=name, fix=f"a number from {low:g} to {high:g}"
        )
