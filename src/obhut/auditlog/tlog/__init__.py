"""Transparency log formats, pure: RFC 6962 hashing and proofs, and C2SP's tiles, checkpoints, cosignatures and proof files.

Knows neither files nor databases nor what an entry means. Never decides whom to trust: keys are given by the caller.
"""
