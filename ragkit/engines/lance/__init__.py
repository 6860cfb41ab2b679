"""A store in LanceDB: one table of passages with their vectors and terms, on a disk or in object storage."""
