"""Part of the promise *erasure*: what an UPDATE or DELETE leaves as bytes is followed to the date on which it is gone.

In heap, indexes, planner statistics, WAL and backups. Rebuilds indexes and renews statistics without keeping anybody waiting, rewrites
tables in a window when asked. Never calls a byte gone that it has not looked after, never needs to know the values that went, and keeps
none.
"""
