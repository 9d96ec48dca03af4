"""Finds personal data: proposes what a column holds, with a confidence, reasons and the question that is left to a person.

Never writes, logs or returns a value that it looked at; never decides: what it is not sure of stays open.
"""
