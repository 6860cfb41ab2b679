"""(question, documents) to the same documents, shortened to verbatim spans."""
