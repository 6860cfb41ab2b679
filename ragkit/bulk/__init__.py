"""Large folders and many questions, by several processes or a cluster."""
