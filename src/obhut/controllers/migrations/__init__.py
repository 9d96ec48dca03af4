"""Changes of the tables of obhut.controllers, in order."""
