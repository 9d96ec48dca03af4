"""Promise: no restore brings an erased person back; everybody and everything else comes back exactly.

A restore recovers a backup into a private quarantine, streams it through the erasure list into a new database, and proves the result
by other means than it was made with before anybody can reach it. Every step is journalled and can be resumed after a kill.

Never promotes or changes the quarantine, never opens a database that is not proved, never recovers without an explicit target, never
carries planner statistics, and never writes a key or an identifier into a query's text, a log, a certificate or the journal.
"""
