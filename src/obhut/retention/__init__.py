"""Promise *inactivity*: users inactive for more than 2 years are anonymised.

By a rule of each controller, counted by the calendar of its time zone, after a notice and a time of grace. Never anonymises anybody who
was seen in time, also not in the last second: whoever is taken is looked at once more while the row is locked. Never acts on an
implausible share of a controller's people, never on somebody who is held, and keeps no address and no name.
"""
