"""A pipeline as an HTTP service that many callers share: search, rerank, prune, ground and ask."""
