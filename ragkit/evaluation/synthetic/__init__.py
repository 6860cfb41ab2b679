"""Questions made from a corpus, so that retrieval can be measured on it without anybody's judgements."""
