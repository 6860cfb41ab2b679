"""One figure: the gold evidence that pruners keep against the text they remove."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ragkit.errors import InputError, MissingExtraError
from ragkit.evaluation.pruning import Curve, recall_at

_FORMATS = (".svg", ".png")
_STEPS = np.linspace(0, 1, 101)  # finer than the eye, and a small file however many thresholds there are


def load_matplotlib() -> Any:
    """The optional library. Raises `MissingExtraError` if it is not there; call it before a long run that ends in a figure."""
    try:
        import matplotlib.figure
    except ImportError:
        raise MissingExtraError("drawing a figure", "eval") from None
    return matplotlib


def draw_curves(curves: Mapping[str, Curve], path: str | Path, title: str = "") -> None:
    """Write one line per pruner as SVG or PNG, by the file's suffix. The same curves give the same file, byte for byte.

    A pruner that can only keep all or nothing has no line.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise InputError(f"path: {path} must end in {' or '.join(_FORMATS)}")
    library = load_matplotlib()
    # text as text, no formulas in names, and neither ids nor a date that change from run to run
    settings = {"svg.fonttype": "none", "svg.hashsalt": "ragkit", "text.parse_math": False}
    with library.rc_context(settings):
        figure = library.figure.Figure(figsize=(7, 5), layout="constrained")
        axes = figure.add_subplot()
        for name, curve in curves.items():
            recall = [recall_at(curve, removed) for removed in _STEPS]
            if np.isfinite(recall).all():
                axes.plot(_STEPS, recall, label=name)
        axes.set(xlabel="text removed", ylabel="gold sentences kept", title=title, xlim=(0, 1), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})
