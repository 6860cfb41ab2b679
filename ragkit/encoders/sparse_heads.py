"""The part of sparse encoding that needs torch: what weighs terms, and the pooling of its weights over a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ragkit.encoders.model_files import weight_files
from ragkit.encoders.network import best_device, load_network, moved, padded, reading
from ragkit.encoders.sparse_folder import Activation, Side, TermPooling
from ragkit.encoders.sparse_terms import Row
from ragkit.errors import InputError, RagkitError

# a pooler that some backbones end in, and buffers that older versions of transformers have saved
_UNUSED = ("pooler.", "position_ids", "token_type_ids")


class Span(NamedTuple):
    """What a network reads: token ids, and which of them to pool."""

    ids: list[int]
    start: int
    stop: int
    """Positions from `start` up to, not including, `stop` are pooled."""


class ImpactNetwork(nn.Module):
    """A transformer with a multi-layer perceptron on each token: the token's impact (DeepImpact, uniCOIL)."""

    def __init__(self, backbone: nn.Module, layers: Sequence[nn.Linear], vocabulary: int) -> None:
        """`layers` are followed by a relu each; the last has one output."""
        super().__init__()
        self.backbone, self.layers, self.vocabulary = backbone, nn.ModuleList(layers), vocabulary

    def forward(self, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Impacts [n, tokens] of token ids [n, tokens], not negative."""
        states = self.backbone(input_ids=ids, attention_mask=attention).last_hidden_state
        for layer in self.layers:
            states = torch.relu(layer(states))
        impacts: torch.Tensor = states[:, :, 0]
        return impacts


def pool_logits(logits: torch.Tensor, mask: torch.Tensor, pooling: TermPooling, activation: Activation) -> torch.Tensor:
    """Weights of terms [n, vocabulary] from `logits` [n, tokens, vocabulary], which are overwritten; `mask` [n, tokens] is 1
    where to pool.

    log(1 + relu(logits)), the largest over tokens or their sum: SPLADE v2 (Formal et al., 2021, arXiv:2109.10086) and its first
    version (arXiv:2107.05720). With the activation "log1p_relu" the logarithm is taken twice (Geng et al., 2025,
    arXiv:2504.14839).
    """
    hidden = (mask == 0)[:, :, None]
    if pooling == "max":
        # the logarithm keeps the order, so that it need not be taken of every token
        return _saturated(logits.masked_fill_(hidden, float("-inf")).amax(1), activation)
    return _saturated(logits, activation).masked_fill_(hidden, 0.0).sum(1)


def pool_impacts(
    impacts: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, vocabulary: int, pooling: TermPooling
) -> torch.Tensor:
    """Weights of terms [n, vocabulary] from the `impacts` [n, tokens] of the tokens `ids` [n, tokens], none of them negative.

    A term that occurs more than once has the largest of its impacts, or their sum.
    """
    weights = torch.zeros(len(ids), vocabulary, dtype=impacts.dtype, device=impacts.device)
    return weights.scatter_reduce_(1, ids, impacts * mask, "amax" if pooling == "max" else "sum")


def word_impacts(impacts: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The impact of each word, which is that of its first piece, in equal parts on its pieces; `starts` [n, tokens] is 1 where a
    word starts.

    DeepImpact (Mallia et al., 2021, arXiv:2104.12016) has whole words as terms. Here a query that has all pieces of a word gets
    its impact, one that shares some of them a part.
    """
    places = torch.arange(impacts.shape[1], device=impacts.device).expand_as(impacts)
    first = torch.where(starts == 1, places, 0).cummax(1).values
    sizes = torch.zeros_like(impacts).scatter_add_(1, first, torch.ones_like(impacts))
    return impacts.gather(1, first) / sizes.gather(1, first)


def load_head(side: Side, device: str | None) -> nn.Module:
    """The network of a side, in evaluation mode, float32, on `device` (a GPU where there is one, if not given).

    Raises `RagkitError` or `InputError` if weights are missing or of the wrong size, of the head as well as of the backbone.
    """
    if side.head == "mlp":
        return _load_impacts(side.path, device)
    return load_network(side.path, device, head="AutoModelForMaskedLM" if side.head == "mlm" else "AutoModelForCausalLM")


def weigh(network: nn.Module, spans: Sequence[Span], side: Side, continuations: frozenset[int]) -> list[Row]:
    """Terms of positive weight of each span. `continuations` are the pieces that continue a word, for sides with whole words."""
    device = next(network.parameters()).device
    ids = padded([span.ids for span in spans], device)
    attention = padded([[1] * len(span.ids) for span in spans], device)
    mask = padded([[int(span.start <= i < span.stop) for i in range(len(span.ids))] for span in spans], device)
    with torch.inference_mode():
        if isinstance(network, ImpactNetwork):
            impacts = network(ids, attention)
            if side.whole_words:
                starts = [[int(i <= span.start or id_ not in continuations) for i, id_ in enumerate(span.ids)] for span in spans]
                # what fills up a row starts words of its own, so that it adds nothing to the last one
                impacts = word_impacts(impacts, padded(starts, device) | (attention == 0))
            weights = pool_impacts(impacts, ids, mask, network.vocabulary, side.pooling)
        else:
            weights = pool_logits(network(input_ids=ids, attention_mask=attention).logits, mask, side.pooling, side.activation)
        rows, terms = torch.nonzero(weights > 0, as_tuple=True)
        values = weights[rows, terms].float().cpu().numpy()
        cuts = torch.bincount(rows, minlength=len(spans)).cumsum(0).tolist()
        found = terms.to(torch.int32).cpu().numpy()
    return [(found[start:stop], values[start:stop]) for start, stop in zip([0, *cuts], cuts, strict=False)]


def _saturated(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    weights = logits.relu_().log1p_()
    return weights.log1p_() if activation == "log1p_relu" else weights


def _load_impacts(folder: Path, device: str | None) -> ImpactNetwork:
    """uniCOIL's or DeepImpact's backbone and head from their tensors; `tok_proj` or `impact_score_encoder` is the head."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    files = weight_files(folder)
    tensors = {name: tensor for file in sorted(set(files.values())) for name, tensor in load_file(file).items()}
    # saved as a part of the model it was trained in
    tensors = {name.removeprefix("coil_encoder."): tensor for name, tensor in tensors.items()}
    head = {name: tensor for name, tensor in tensors.items() if name.startswith(("tok_proj.", "impact_score_encoder."))}
    body = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name not in head}
    with reading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        backbone = AutoModel.from_config(config, trust_remote_code=False).float()
        missing, unknown = backbone.load_state_dict(body, strict=False)
    for names, what in ((missing, "lack"), (unknown, "have, beyond the network,")):
        if wrong := [name for name in names if not any(part in name for part in _UNUSED)]:
            raise RagkitError(f"model: the weights in {folder} {what} {len(wrong)} tensors, such as {wrong[0]}")
    network = ImpactNetwork(backbone, _layers(folder, head, config.hidden_size), config.vocab_size)
    return moved(network.eval(), device or best_device())


def _layers(folder: Path, head: dict[str, torch.Tensor], hidden: int) -> list[nn.Linear]:
    """The linear layers of a head in order; their sizes must lead from the hidden size to one."""
    layers, width = [], hidden
    for name in sorted(name.removesuffix(".weight") for name in head if name.endswith(".weight")):
        weight, bias = head[f"{name}.weight"], head.get(f"{name}.bias")
        if bias is None:
            raise InputError(f"model: the weights in {folder} lack {name}.bias")
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise InputError(
                f"model: {name}.weight in {folder} has the shape {tuple(weight.shape)}; it must take {width} numbers"
            )
        layer, width = nn.Linear(width, len(weight)), len(weight)
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
    if not layers or width != 1:
        raise InputError(f"model: the head in {folder} gives {width} numbers for a token; an impact is one")
    return layers
