"""Safe custody of personal data for the GDPR processor.

The tree reads like a privacy statement: one package a promise. ``PROMISES.md`` at the root of the repository maps each
published sentence to the package that keeps it, the journey test that shows it and the command that proves it.
"""

__version__ = "0.1.0"
