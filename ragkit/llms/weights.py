"""Loads a transformer that writes text, in the precision that is asked for. Needs torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from ragkit.encoders.network import best_device, hushed
from ragkit.errors import InputError, RagkitError
from ragkit.llms.causal import CausalReader
from ragkit.llms.reading import Reader
from ragkit.llms.seq2seq import Seq2SeqReader


def load_reader(folder: Path, device: str | None, dtype: str) -> Reader:
    """The model in a folder, ready to read prompts; its configuration says whether it is causal or an encoder-decoder.

    Raises `RagkitError` if the weights are not in safetensors or incomplete, and `InputError` if the device cannot be used or the
    network's kind of memory is none that can be shared (state-space models).
    """
    import transformers

    with hushed():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
            network, report = getattr(transformers, kind).from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RagkitError(f"model: {folder} cannot be loaded from safetensors: {reason}") from error
    if missing := sorted(report["missing_keys"]):
        raise RagkitError(f"model: the weights in {folder} lack {len(missing)} tensors of the network, such as {missing[0]}")
    try:
        network = network.eval().to(device or best_device())
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device!r} cannot be used: {' '.join(str(error).split())[:200]}") from error
    return Seq2SeqReader(network) if config.is_encoder_decoder else CausalReader(network, folder.name)
