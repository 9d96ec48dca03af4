"""Schema changes of the backups' tables."""
