"""Makers: what a transformer of the client does to one column of a chunk."""
