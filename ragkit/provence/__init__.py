"""Provence: one forward pass over question and passage that scores the passage and marks the text worth keeping."""
