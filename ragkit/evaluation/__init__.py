"""Datasets, metrics and runs."""
