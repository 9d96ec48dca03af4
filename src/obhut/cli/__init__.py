"""The command line: parse, call a use case, show. One module a noun; no decision is taken here.

Never prints a value of personal data, not even from an unexpected exception.
"""
