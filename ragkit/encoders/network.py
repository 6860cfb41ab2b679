"""What all encoding with torch needs: loading any transformer, devices, and rows of token ids as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError

from ragkit.errors import InputError, RagkitError

N = TypeVar("N", bound=torch.nn.Module)

_hush_lock = Lock()


def load_network(
    folder: Path, device: str | None = None, *, head: str = "AutoModel", dtype: str = "float32", layers: int | None = None
) -> torch.nn.Module:
    """A transformer in evaluation mode on `device` (a GPU where there is one, if not given).

    `head` names the class of transformers that loads it; `dtype` is one of torch, or "auto" for that of the checkpoint;
    `layers` is how many of its layers it gets, from the first, if not all. Raises `RagkitError` if the folder has no safetensors
    weights that transformers can read, or if they lack a part of the network, which would then be random, and `InputError` if
    the device cannot be used.
    """
    import transformers

    depth = {} if layers is None else {"num_hidden_layers": layers}
    with reading(folder):
        network, report = getattr(transformers, head).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=dtype, output_loading_info=True, **depth
        )
    # encoding pools by itself, so a checkpoint need not have the pooler that some architectures end in
    missing = [key for key in sorted(report["missing_keys"]) if not (head == "AutoModel" and "pooler" in key)]
    if missing:
        raise RagkitError(f"model: the weights in {folder} lack {len(missing)} tensors of the network, such as {missing[0]}")
    loaded: torch.nn.Module = moved(network.eval(), device or best_device())
    return loaded


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Hushed, and what transformers cannot read of a model's folder becomes a `RagkitError` that names it."""
    with hushed():
        try:
            yield
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RagkitError(f"model: {folder} cannot be loaded from safetensors: {reason}") from error


def moved(network: N, device: str, dtype: torch.dtype | None = None) -> N:
    """The network on `device`, its numbers in `dtype` if given. Raises `InputError` if the device cannot be used."""
    try:
        return network.to(device, dtype)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device!r} cannot be used: {' '.join(str(error).split())[:200]}") from error


def best_device() -> str:
    """The fastest device of this machine: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_type(network: torch.nn.Module) -> str:
    """Where a network is: "cuda", "mps" or "cpu"."""
    return next(network.parameters()).device.type


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Rows of different lengths as one [rows, longest] int64 tensor, filled up with zeros."""
    filled = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return torch.from_numpy(filled).to(device)


@contextmanager
def hushed() -> Iterator[None]:
    """Without transformers' progress bars and log messages; its settings are put back afterwards."""
    from transformers.utils import logging

    with _hush_lock:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
