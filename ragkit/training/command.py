"""`ragkit train`: from a configuration to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragkit.errors import InputError
from ragkit.training.config import read_config

app = typer.Typer(no_args_is_help=True, help="Train models.")


@app.command()
def provence(
    config: Annotated[Path, typer.Option(help="YAML file that says what to train on and how.")],
    output: Annotated[Path, typer.Option(help="Folder for the model, its log and the checkpoint to resume from.")],
    data: Annotated[
        Path | None, typer.Option(envvar="RAGKIT_DATA", help="Folder that the configuration's paths are relative to.")
    ] = None,
    device: Annotated[str | None, typer.Option(help='"cpu", "cuda", ...; by default a GPU where there is one.')] = None,
) -> None:
    """Train a model that reranks and prunes. Interrupted, the same command goes on where it was."""
    import torch

    from ragkit.encoders.folder import locate
    from ragkit.encoders.network import best_device
    from ragkit.encoders.pairs import PairTokenizer
    from ragkit.provence.matching import rarity_of
    from ragkit.provence.own import is_own, new_model, trained_model
    from ragkit.training.assemble import assemble
    from ragkit.training.loop import Trainer
    from ragkit.training.rows import labelled

    console = Console(stderr=True)
    settings = read_config(config)
    # before the data is read, which takes minutes, so that a mistake is named at once
    base = locate(settings.base)
    torch.manual_seed(settings.seed)
    if is_own(base):
        model, table = trained_model(base, device or best_device())
    else:
        model, table = new_model(base, device or best_device()), None
    longest = model.backbone.config.max_position_embeddings
    for field in ("max_length", "window"):
        if getattr(settings, field) > longest:
            raise InputError(f"config: {config}: {field}: {base} reads at most {longest} tokens, not {getattr(settings, field)}")
    output.mkdir(parents=True, exist_ok=True)
    assembled = assemble(
        settings.sources, data or config.parent, settings.seed, lambda line: console.print(line, markup=False, highlight=False)
    )
    if table is None and settings.lexical and not is_own(base):
        table = rarity_of(sorted({one.passage for one in assembled.train}))
    rarity = None if table is None else table.astype(np.float32) / np.float32(255)
    tokenizer = PairTokenizer(base, settings.max_length, "training")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        reading = bar.add_task("reading", total=len(assembled.train) + len(assembled.dev), note="")
        parts = [labelled(part, tokenizer, rarity, lambda n: bar.advance(reading, n)) for part in assembled]
        trainer = Trainer(settings, model, *parts, output=output, base=base, rarity=table)
        training = bar.add_task("training", total=trainer.total, note="")
        best = trainer.run(lambda step, note: bar.update(training, completed=step, note=note))
    typer.echo(json.dumps({"model": str(output / "model"), **best}))
