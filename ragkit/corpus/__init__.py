"""The durable home of passages: ids, text, metadata, filters, add and delete."""
