"""Passages that somebody plants in a corpus to reach the generator, and how often a pipeline lets them."""
