"""Whether the keys of erased people are gone, and from when on that is final."""

from __future__ import annotations

from collections.abc import Iterator

from obhut.erasure import ledger
from obhut.erasure.shred import Shredder
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore import rotation
from obhut.keystore.destruction import in_use
from obhut.keystore.subjects import Keyring
from obhut.promises.model import Evidence, State


def keys_of_erased(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """No erased person has a key in the key table; asked of the table, person by person of the erasure list."""
    if not in_use(ledger.places().session()):
        return
    now = clock.now()
    shredder = Shredder(settings)
    try:
        left = shredder.left(clock)
    finally:
        shredder.close()
    if left:
        yield Evidence(f"{left} erased people have a key of the audit log", State.BROKEN, now, hint='Destroy them: "obhut keys reconcile".')
    else:
        yield Evidence("no erased person has a key of the audit log", State.KEPT, now)


def epochs(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """The key store serves, and wrapping keys are rotated as the settings say."""
    if not in_use(ledger.places().session()):
        return
    now = clock.now()
    with Keyring(settings, clock=clock) as keyring:
        keyring.driver.check()
        late = rotation.waiting(keyring, older_than=2 * settings.keystore.rotate_every)
        open_ones = sum(one.not_final for one in rotation.status(keyring))
    if late:
        yield Evidence(
            f"{len(late)} controllers have wrapping keys that should have been rotated",
            State.BROKEN,
            now,
            hint='Run "obhut keys rotate --due".',
        )
    else:
        yield Evidence(f"wrapping keys are rotated; the keys of {open_ones} erased people are not final yet", State.KEPT, now)
