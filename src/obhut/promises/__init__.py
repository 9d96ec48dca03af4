"""Keeps the promise that is about all others: what the privacy statement says is checked, and what was not checked is not claimed.

Evaluates each published sentence on the running system: kept, broken or unproven, with the evidence and its age. Never takes a
setting for an effect, never counts a check that could not run, never shows a promise as kept because nothing spoke against it.
"""
