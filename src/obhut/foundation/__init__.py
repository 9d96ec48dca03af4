"""What every promise stands on: errors with stable codes, time, identifiers, settings and redaction.

Never imports another package of Obhut, never talks to a database.
"""
