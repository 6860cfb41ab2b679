"""What a reranker asks of a language model: to generate text, and to score labels."""
