"""Text to vectors: dense encoders and the lexical analyzer; batching and devices live here."""
