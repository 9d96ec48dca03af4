"""Capture: from the WAL of a protected database to entries of the audit log.

Reads one logical slot, so the application, psql and jobs are all seen. What it cannot see becomes a gap entry. It never writes to a
table of the protected database, never advances the slot past what is in the log, and never keeps a plain value outside memory.
"""
