"""The engine's WAL filter: reads a segment on standard input, writes it compressed and sealed to standard output.

``python -m obhut.backups.seal_filter`` seals, with ``--open`` it opens. The engine moves a segment into the archive only through
this filter, so the archive never holds plain WAL. Starts once per segment, so it imports little.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from obhut.backups import keys, sealing


def main(arguments: list[str]) -> int:
    """Run the filter; returns the exit status."""
    if arguments == ["--open"]:
        for block in sealing.unsealed(sys.stdin.buffer, keys.borrowed, "wal"):
            sys.stdout.buffer.write(block)
    else:
        # The time of the last write: a segment waits here while nothing archives, and its age counts from then.
        label, key = keys.borrowed_for(datetime.fromtimestamp(os.fstat(0).st_mtime, UTC))
        sealer = sealing.Sealer(sys.stdout.buffer, key, label, "wal", compress=True)
        while block := sys.stdin.buffer.read(sealing.CHUNK):
            sealer.write(block)
        sealer.finish()
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
