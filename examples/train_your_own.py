"""Train a model that reranks and prunes on labelled sentences of your own, then use it.

So few examples and steps teach it nothing; `ragkit.training.labeller` has a language model label passages by the thousand.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_core.documents import Document

from ragkit import ProvencePruner, provenance
from ragkit.training.examples import Example, write_examples

CONFIG = """
sources:
  - {kind: examples, path: examples.jsonl, dev: {share: 0.25}}
max_length: 64      # tokens per window
batch_tokens: 64    # tokens per step; the default is 5000
epochs: 2
"""

TOWNS = {
    "Aachen": "Rhine",
    "Bern": "Aare",
    "Cork": "Lee",
    "Delft": "Schie",
    "Essen": "Ruhr",
    "Fulda": "Fulda",
    "Graz": "Mur",
    "Hof": "Saale",
}
examples = [
    Example(
        id=town,
        group=town,  # all passages of one question share it
        question=f"Which river runs through {town}?",
        sentences=(f"{town} is a town. ", f"The {river} runs through {town}. ", "It often rains."),
        gold=(1,),  # the sentences to keep
        relevant=True,
    )
    for town, river in TOWNS.items()
]
with tempfile.TemporaryDirectory() as folder:
    home = Path(folder)
    write_examples(home / "examples.jsonl", examples)
    (home / "run.yaml").write_text(CONFIG, encoding="utf-8")
    # interrupted, the same command goes on where it was
    command = ["train", "provence", "--config", home / "run.yaml", "--output", home / "out", "--data", home]
    subprocess.run([sys.executable, "-m", "ragkit", *map(str, command)], check=True)

    pruner = ProvencePruner(model=str(home / "out" / "model"), threshold=0.0)  # keeps everything, to show the scores
    passage = Document(page_content="Ghent is old. The Scheldt runs through Ghent.")
    for document in pruner.compress_documents([passage], "Which river runs through Ghent?"):
        print(document.page_content, provenance(document).unit_scores)
