"""One engine for every place where a person's values make way: copies for tests, anonymisation, the filtered restore.

Plans what becomes of each column and says why, masks streams of rows under a key that lives in memory only, and judges what the result
may be called. Never passes a column on that nobody classified, never turns NULL into a value unasked, never keeps the key beyond a run,
and never calls a copy anonymised because it was masked.
"""
