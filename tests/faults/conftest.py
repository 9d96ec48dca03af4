"""Faults: kill processes, damage files, fill disks, then look at what is left."""
