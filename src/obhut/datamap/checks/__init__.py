"""The single checks of a data map; :mod:`obhut.datamap.check` runs them all. Pure: they see values, never a database."""
