"""Files to passages with exact source positions: loading, block structure, sentences, splitting."""
