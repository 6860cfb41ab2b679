"""(question, documents) to the same documents, reordered."""
