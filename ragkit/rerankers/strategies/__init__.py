"""Reranking algorithms as generators of rounds of questions. They know numbers only: no model, no text, no documents."""
