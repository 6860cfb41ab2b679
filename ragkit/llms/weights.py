"""Loads a transformer that writes text, in the precision that is asked for. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragkit.encoders.network import load_network, reading
from ragkit.llms.causal import CausalReader
from ragkit.llms.reading import Reader
from ragkit.llms.seq2seq import Seq2SeqReader


def load_reader(folder: Path, device: str | None, dtype: str) -> Reader:
    """The model in a folder, ready to read prompts; its configuration says whether it is causal or an encoder-decoder.

    Raises `RagkitError` if the weights are not in safetensors or incomplete, and `InputError` if the device cannot be used or the
    network's kind of memory is none that can be shared (state-space models).
    """
    from transformers import AutoConfig

    with reading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    head = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    network: Any = load_network(folder, device, head=head, dtype=dtype)
    return Seq2SeqReader(network) if config.is_encoder_decoder else CausalReader(network, folder.name)
