"""Standbys of a vendor's server, for tests of failover."""

from __future__ import annotations

import subprocess

from obhut.postgres.clusters import Cluster
from support.installation import SERVER, Installation


def standby_of(installation: Installation, *, keeps_slots: bool) -> Cluster:
    """Make a streaming standby.

    Args:
        installation: whose server it follows.
        keeps_slots: it keeps failover slots, and the primary sends nothing through them that the standby does not have.
    """
    cluster = installation.cluster
    standby = Cluster(installation.folder / "standby", cluster.binaries, cluster.user)
    standby.directory.mkdir(mode=0o711)
    source = f"host={cluster.socket_directory} port=5432 user=obhut dbname={installation.name}"
    program = cluster.binaries.path("pg_basebackup")
    slots = ["-C", "-S", "standby", "-c", "fast"]
    subprocess.run([program, "-D", standby.data, "-d", source, "-X", "stream", *slots], check=True, timeout=120, capture_output=True)
    standby.adopt(superuser="obhut")
    standby.configure(
        {
            **SERVER,
            "wal_level": "logical",
            "max_slot_wal_keep_size": "2GB",
            "primary_conninfo": source,
            "primary_slot_name": "standby",
            "hot_standby_feedback": True,
            **({"sync_replication_slots": True} if keeps_slots else {}),
        }
    )
    (standby.data / "standby.signal").touch()
    if keeps_slots:
        cluster.configure({"synchronized_standby_slots": "standby"})
        cluster.reload()
    standby.start()
    return standby
