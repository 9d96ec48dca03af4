"""Compares a schema and its data map with those of another commit: what is new, gone, renamed or retyped, and which line the map lacks.

Needs no database: the map alone, or a stored snapshot of the schema, or a live catalogue, whichever there is. Holds names and types only.
"""
