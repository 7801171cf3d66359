"""How good a model is at its task, and how much of that may be lost."""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec

from convkit.errors import UsageError

TOP1, AGREEMENT = "top1", "agreement"
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_NUMBER = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)\s*(?P<percent>%?)\s*")


class AccuracyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[accuracy]`: how good the model is at its task, before and after, and how much of that may be lost."""

    data: str | None = None
    """Evaluation data: a ``.npz`` file or a folder of them, a folder of ``.npy`` files or of images,
    ``FILE.py:function`` or ``module:function``."""
    labels: str = "labels"
    """The name of the array that holds the labels."""
    metric: str | None = None
    """``top1``, ``agreement`` with the source framework's own answers, or ``FILE.py:function`` or ``module:function``,
    which is called with the outputs by name and the labels and returns a number, the larger the better. By default top1
    where the data have labels, else agreement."""
    output: str | None = None
    """The output that names the classes; by default the first of floats with an axis of classes."""
    also: dict[str, str] = {}
    """Further outputs that name classes, each with the name of the array that holds its labels: they are judged by top1
    and reported, and `max_drop` does not look at them."""
    samples: _Positive | None = None
    """At most this many samples of the evaluation data are used."""
    max_drop: str | float | None = None
    """Most that may be lost against the source framework, in points of the metric: ``1%`` or 0.01 is one percentage
    point of top-1."""
    budget_evals: _Positive | None = None
    """Most models that are evaluated in search of one that keeps within `max_drop`."""

    @property
    def max_drop_points(self) -> float | None:
        """Return the most that may be lost.

        Raises:
            UsageError: the text is no such number.
        """
        if self.max_drop is None:
            return None
        match = _NUMBER.fullmatch(str(self.max_drop))
        drop = float(match["number"]) / (100 if match["percent"] else 1) if match else math.nan
        shares = self.metric in (None, TOP1, AGREEMENT)
        if not match or (shares and drop >= 1):
            raise UsageError(
                f"'{self.max_drop}' is no drop of {self.metric or 'an accuracy'}"
                + (" between 0 and 1" if match else ""),
                hint="write '1%' or 0.01 for one percentage point",
                code="accuracy.max-drop",
            )
        return drop

    def require_metric(self) -> None:
        """Refuse a metric that is none, or has nothing to be taken on.

        Raises:
            UsageError: says which.
        """
        self._require_data(self.metric)
        if self.metric not in (None, TOP1, AGREEMENT) and ":" not in str(self.metric):
            raise UsageError(
                f"there is no metric '{self.metric}'",
                hint=f"choose {TOP1}, {AGREEMENT}, FILE.py:function or module:function",
                code="accuracy.metric",
            )

    def require_also(self) -> None:
        """Refuse outputs that there is nothing to judge on.

        Raises:
            UsageError: no data are given.
        """
        self._require_data(self.also or None)

    def require_max_drop(self) -> None:
        """Refuse a drop that is none, or is of nothing.

        Raises:
            UsageError: says which.
        """
        self._require_data(self.max_drop)
        _ = self.max_drop_points

    def require_budget(self) -> None:
        """Refuse to bound a search that is not asked for.

        Raises:
            UsageError: no `max_drop` is given.
        """
        if self.budget_evals is not None and self.max_drop is None:
            raise UsageError(
                "it bounds the search for a model that keeps within --max-drop, which is not given",
                hint="add --max-drop 1%",
                code="accuracy.no-budget",
            )

    def _require_data(self, asked: object) -> None:
        if asked is not None and self.data is None:
            raise UsageError(
                "there are no data on which the model could be judged",
                hint="--eval-data FILE.npz",
                code="accuracy.no-data",
            )
