"""Care of a corpus: which passages no question wants, which repeat one another, and which have proved their worth."""
