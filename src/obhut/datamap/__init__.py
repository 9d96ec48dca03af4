"""Keeps the knowledge that every other promise rests on: whose data is where, and what becomes of it.

The data map is a file in the vendor's git, reviewed like code and checked in the vendor's CI. What it does not know stops the run: it
never guesses a link, never treats an unclassified column as harmless, and never writes to a protected database.
"""
