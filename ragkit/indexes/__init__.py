"""Vectors to nearest positions. Numbers only: no text, no LangChain."""
