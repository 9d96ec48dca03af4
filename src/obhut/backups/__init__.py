"""Promise: backups are made continuously all day, and every byte of them is gone after 35 days.

Base backups and streamed WAL are taken by an existing engine behind a small adapter (:mod:`obhut.backups.engine`). Obhut adds what
engines leave out: its own verification of every manifest, encryption at rest, a hard maximum age for every byte whatever its
status, sweeping of what a killed run left, a heartbeat commit a minute, and alarms for lag, gaps and stale bases.

Never takes the engine's word for a backup being usable, never keeps a byte because it is the last one, never restores
(:mod:`obhut.restores` does, through :class:`obhut.backups.repository.Repository`).
"""
