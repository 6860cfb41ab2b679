"""One index directory: a corpus and its indexes, replaced atomically by generation."""
