"""Migrations of capture."""
