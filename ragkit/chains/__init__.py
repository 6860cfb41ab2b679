"""The composition: pipelines, grounding, citations and extractive answers."""
