"""Promise: test and staging databases hold no person of production, and a copy that does is dropped before anybody sees it.

A copy is streamed from one exported snapshot of the live database through the masking engine into a new, closed database. What the map
does not classify, and what no controller has instructed, stops it. The leak check looks at what is written and at the finished copy, beside
the map and not beside the masker, and the copy says about itself what it is.

Never writes a plain row to the disk, the WAL or the statistics of the target, never carries passwords of roles or ways to other servers,
never writes to the source, never calls a copy anonymised, and never opens one whose check failed or did not run.
"""
