"""Background work: schedules, the job worker, and the loops that keep backups continuous.

The only importer of the job engine. A job's argument is the name of a database in the settings or an opaque id, never a person: job
engines store and log what they are given. Jobs only call use cases; what they do is journalled there.
"""
