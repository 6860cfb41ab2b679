"""A dense model as files: which of the known layouts it has, and what they say about its two sides. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ragkit.encoders.folder import digest, longest_input, tower_folders
from ragkit.encoders.model_files import Module, hidden_size, read_chains, read_config, read_json
from ragkit.errors import InputError

Pooling = Literal["mean", "cls", "last", "max", "weighted_mean", "mean_sqrt_len"]

# what sentence-transformers calls them, with the flags of its older versions in the order in which it concatenates them
_POOLINGS: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_OLD_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ENCODER_HALVES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel", "longt5": "LongT5EncoderModel"}
_DPR = ("DPRContextEncoder", "DPRQuestionEncoder")
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")
_DENSE_KEYS = {
    *("in_features", "out_features", "bias", "activation_function", "use_residual"),
    *("module_input_name", "module_output_name"),
}
# how inputs are padded and cut makes no difference here: nothing is cut, and padding has no part in a vector
_HARMLESS_PROCESSING = {"padding", "truncation", "max_length", "pad_to_multiple_of", "return_tensors"}


@dataclass(frozen=True)
class Step:
    """What a pooled vector goes through: a module of sentence-transformers."""

    kind: Literal["dense", "layer_norm", "normalize"]
    path: Path | None = None
    """The folder with the weights; "normalize" has none."""
    outputs: int = 0
    activation: str = "Identity"
    """A class of torch.nn, behind the linear layer of "dense"."""
    residual: bool = False
    """Whether "dense" adds its input, or another linear layer's output of it, to what the activation gives."""


@dataclass(frozen=True)
class Tower:
    """How texts of one side, documents or queries, become vectors."""

    path: Path
    """Holds config.json, the tokenizer and the weights."""
    width: int
    """Numbers in a vector as the modules give it."""
    max_length: int
    """Tokens in a window, special ones included."""
    longest: int | None = None
    """The most tokens the position embeddings allow; None if there is no limit."""
    head: str = "AutoModel"
    """The class of transformers that loads the weights."""
    depth: int | None = None
    """The number of layers that the network has; None if config.json does not say it."""
    layers: int | None = None
    """How many of them are run, from the first; None for all."""
    pooling: tuple[Pooling, ...] = ("mean",)
    """Concatenated, if more than one."""
    pool_prompt: bool = True
    """Whether the tokens of the prompt, and the special ones before them, are pooled too."""
    steps: tuple[Step, ...] = ()
    """Behind the pooling. A normalisation at the end is not among them but is `normalize`."""
    normalize: bool = True
    prompt: str = ""
    lowercase: bool = False
    """Whether texts are lower-cased, whatever the tokenizer does."""
    eos: str | None = None
    """A token that has to stand at the end of what the network reads."""
    kept: int | None = None
    """How many numbers of a vector are kept, from the first (Matryoshka); None for all."""

    @property
    def dimension(self) -> int:
        """Length of a finished vector."""
        return self.width if self.kept is None else self.kept

    @property
    def facts(self) -> dict[str, Any]:
        """What of a tower changes its vectors, files by their contents; what most models do without only where it is used."""
        unusual = {
            "layers": self.layers,
            "dimension": self.kept,
            "pool_prompt": None if self.pool_prompt else False,
            "lowercase": self.lowercase or None,
            "eos": self.eos,
            "modules": [_step_facts(step) for step in self.steps] or None,
        }
        return {
            "digest": digest(self.path),
            "pooling": self.pooling[0] if len(self.pooling) == 1 else list(self.pooling),
            "normalize": self.normalize,
            "max_length": self.max_length,
            **{name: fact for name, fact in unusual.items() if fact is not None},
        }


def read_towers(root: Path, pooling: tuple[Pooling, ...] | None = None) -> tuple[Tower, Tower]:
    """The document side and the query side of a model folder; `pooling` overrides what it says.

    Known are sentence-transformers folders (Transformer, Pooling, Dense, LayerNorm, Dropout, Normalize, and a Router or Asym with
    routes for queries and documents), checkpoints without such files (mean pooling, normalised; the last token for causal
    language models; DPR's encoders as they are), and folders with one model for each side, see `tower_folders`. Of an
    encoder-decoder of the T5 family the encoder is used.

    Vectors are normalised where the last module does so, and where sentence-transformers would compare them by cosine: here they
    are compared by inner products. Raises `InputError` for whatever cannot be reproduced: a wrong vector is worse than none.
    """
    folders = tower_folders(root)
    if folders:
        return read_towers(folders[0], pooling)[0], read_towers(folders[1], pooling)[1]
    chains = read_chains(root)
    if chains is None:
        tower = _plain(root, pooling)
        return tower, tower
    settings = read_json(root / "config_sentence_transformers.json") or {}
    prompts = settings.get("prompts") or {}
    usual = prompts.get(settings.get("default_prompt_name"))
    of_documents = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), usual)
    return (
        _finished(root, _chained(root, chains.document, pooling, "document"), settings, of_documents),
        _finished(root, _chained(root, chains.query, pooling, "query"), settings, prompts.get("query", usual)),
    )


def adjusted(tower: Tower, name: str, given: Mapping[str, Any]) -> Tower:
    """The tower with fields as given. Raises `InputError` for more tokens, layers or dimensions than the model `name` has."""
    bounds = {"max_length": (tower.longest, "tokens"), "layers": (tower.depth, "layers"), "dimension": (tower.width, "numbers")}
    for field, (most, things) in bounds.items():
        value = given.get(field)
        if value is not None and most is not None and value > most:
            raise InputError(f"{field}: {name} has at most {most} {things}, not {value}")
    kept = given.get("dimension", tower.kept)
    fields = {field: value for field, value in given.items() if field != "dimension"}
    return replace(tower, **fields, kept=None if kept == tower.width else kept)


def _plain(root: Path, pooling: tuple[Pooling, ...] | None) -> Tower:
    """The tower of a folder without sentence-transformers files."""
    config = read_config(root)
    architecture = (config.get("architectures") or [""])[0]
    if architecture in _DPR:
        width = int(config.get("projection_dim") or 0) or hidden_size(config, root)
        tower = replace(_transformer(root, "document"), head=architecture, width=width, normalize=False)
        usual: Pooling = "cls"
    else:
        tower = _transformer(root, "document")
        # some of these have been trained further to read both ways
        usual = "last" if architecture.endswith("ForCausalLM") and config.get("is_causal") is not False else "mean"
    poolings = pooling or (usual,)
    return replace(tower, pooling=poolings, width=tower.width * len(poolings))


def _chained(root: Path, chain: Sequence[Module], pooling: tuple[Pooling, ...] | None, side: str) -> Tower:
    """One side from its modules."""
    if strange := [module.type for module in chain if not module.type.startswith("sentence_transformers.")]:
        raise InputError(f"model: {root.name} has a module that is code of its own, which is not run: {strange[0]}")
    kinds = [module.kind for module in chain]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise InputError(
            f"model: {root.name} begins with {' + '.join(kinds[:2]) or 'nothing'}; supported is Transformer + Pooling"
        )
    first, second, *rest = chain
    tower = _transformer(first.folder, side)
    said = read_json(second.folder / "config.json") or {}
    poolings = pooling or _poolings(root, said)
    steps, width = list[Step](), tower.width * len(poolings)
    for module in rest:
        if module.kind == "Dropout":
            continue
        step = _step(root, module, width)
        width = step.outputs
        steps.append(step)
    ends = bool(steps) and steps[-1].kind == "normalize"
    return replace(
        tower,
        width=width,
        pooling=poolings,
        pool_prompt=said.get("include_prompt") is not False,
        steps=tuple(steps[:-1] if ends else steps),
        normalize=ends,
    )


def _finished(root: Path, tower: Tower, settings: Mapping[str, Any], prompt: str | None) -> Tower:
    """The tower with what the model as a whole says: its prompt, how vectors are compared, and how much of them is kept."""
    comparison = settings.get("similarity_fn_name")
    # between vectors of length one all of them agree on the order
    if comparison not in (None, "dot", "cosine") and not (comparison == "euclidean" and tower.normalize):
        raise InputError(f"model: {root.name} compares by {comparison}; supported are inner products (dot) and cosine")
    kept = settings.get("truncate_dim")
    return replace(
        tower,
        normalize=tower.normalize or comparison == "cosine",
        prompt=prompt or "",
        kept=kept if kept and kept < tower.width else None,
    )


def _step(root: Path, module: Module, width: int) -> Step:
    """A module behind the pooling, which gets vectors of `width` numbers."""
    kind, folder = module.kind, module.folder
    config = read_json(folder / "config.json") or {}
    places = {config.get(f"module_{end}put_name") or "sentence_embedding" for end in ("in", "out")}
    if kind in ("Dense", "Normalize") and places != {"sentence_embedding"}:
        raise InputError(f"model: the module {kind} of {root.name} is not about whole texts but {', '.join(sorted(places))}")
    if kind == "Normalize":
        return Step("normalize", outputs=width)
    if kind == "LayerNorm":
        return Step("layer_norm", folder, width)
    if kind != "Dense":
        raise InputError(f"model: {root.name} has a module that is not supported: {kind}")
    if missing := {"in_features", "out_features"} - config.keys():
        raise InputError(f"model: the module Dense of {root.name} lacks {', '.join(sorted(missing))}")
    if unknown := config.keys() - _DENSE_KEYS:
        raise InputError(
            f"model: the module Dense of {root.name} has settings that are not supported: {', '.join(sorted(unknown))}"
        )
    if config["in_features"] != width:
        raise InputError(f"pooling: {root.name} goes on with vectors of {config['in_features']} numbers, not {width}")
    qualified = str(config.get("activation_function") or "torch.nn.Tanh")
    activation = qualified.rsplit(".", 1)[-1]
    if not qualified.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise InputError(f"model: the activation {qualified} of {root.name} is not one of {', '.join(_ACTIVATIONS)}")
    return Step("dense", folder, int(config["out_features"]), activation, bool(config.get("use_residual")))


def _transformer(path: Path, side: str) -> Tower:
    """The tower of a transformer alone, with the plain defaults."""
    config = read_config(path)
    longest = longest_input(config)
    # each family of models once had a file name of its own
    said = next((read_json(file) for file in sorted(path.glob("sentence_*_config.json"))), None) or {}
    _check_transformer(path, said)
    tokenizer = read_json(path / "tokenizer_config.json") or {}
    limits = [said.get(f"{side}_length"), said.get("max_seq_length"), tokenizer.get("model_max_length")]
    head = _ENCODER_HALVES.get(config.get("model_type", ""), "AutoModel")
    if config.get("is_encoder_decoder") and head == "AutoModel":
        raise InputError(f"model: {path.name} is an encoder-decoder; supported of these are {', '.join(_ENCODER_HALVES)}")
    eos = tokenizer.get("eos_token") if tokenizer.get("add_eos_token") else None
    depths = (config.get(key) for key in ("num_hidden_layers", "num_layers", "n_layers", "n_layer"))
    return Tower(
        path,
        hidden_size(config, path),
        # tokenizers without a limit say so with an astronomically large number
        next((min(x, longest or x) for x in limits if x and x < 1_000_000), longest or 512),
        longest,
        head,
        next((depth for depth in depths if isinstance(depth, int)), None),
        lowercase=bool(said.get("do_lower_case")),
        eos=eos.get("content") if isinstance(eos, Mapping) else eos,
    )


def _check_transformer(path: Path, said: Mapping[str, Any]) -> None:
    """Raises `InputError` where sentence-transformers would read texts, or the network's output, in an unusual way."""
    text = (said.get("modality_config") or {"text": {}}).get("text")
    processing = said.get("processing_kwargs") or {}
    unusual = {
        "transformer_task": said.get("transformer_task", "feature-extraction") != "feature-extraction",
        "module_output_name": said.get("module_output_name", "token_embeddings") != "token_embeddings",
        "modality_config": text is None
        or text.get("method", "forward") != "forward"
        or text.get("method_output_name", "last_hidden_state") != "last_hidden_state",
        "query_expansion": bool(said.get("query_expansion")),
        "processing_kwargs": any(set(processing.get(kind) or ()) - _HARMLESS_PROCESSING for kind in ("common", "text")),
    }
    if found := [name for name, on in unusual.items() if on]:
        raise InputError(f"model: the transformer in {path} has settings that are not supported: {', '.join(found)}")


def _poolings(root: Path, said: Mapping[str, Any]) -> tuple[Pooling, ...]:
    modes = said.get("pooling_mode")
    if modes is None:
        on = [key for key, value in said.items() if key.startswith("pooling_mode_") and value]
        modes = [mode for key, mode in _OLD_FLAGS.items() if key in on] + [key for key in on if key not in _OLD_FLAGS]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    if unknown := [str(mode) for mode in modes if mode not in _POOLINGS]:
        raise InputError(f"pooling: {root.name} pools in a way that is not supported: {', '.join(unknown)}")
    return tuple(_POOLINGS[mode] for mode in modes)


def as_poolings(value: Pooling | Sequence[Pooling] | None) -> tuple[Pooling, ...] | None:
    """One pooling or several to concatenate, as a tuple. Raises `InputError` for one that is not known."""
    if value is None:
        return None
    poolings = (value,) if isinstance(value, str) else tuple(value)
    if not poolings or set(poolings) - set(get_args(Pooling)):
        raise InputError(f"pooling: {value!r} is not one or several of {', '.join(get_args(Pooling))}")
    return poolings


def _step_facts(step: Step) -> dict[str, Any]:
    facts = {"kind": step.kind, "activation": step.activation, "residual": step.residual}
    return facts | ({"digest": digest(step.path)} if step.path else {})
