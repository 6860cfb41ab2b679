"""Training a Provence model: annotated examples, hard negatives, labels by a language model, and the training loop."""
