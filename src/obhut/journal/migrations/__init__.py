"""Changes of the tables of obhut.journal, in order."""
