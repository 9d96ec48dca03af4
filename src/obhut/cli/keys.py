"""``obhut keys``: the keys under which an audit log holds personal values, and when an erasure is final."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import Context, context
from obhut.cli.exits import UsageError
from obhut.erasure import ledger
from obhut.erasure.shred import Reconciled, Shredder
from obhut.keystore import renewal, rotation
from obhut.keystore.errors import KeyMissingError
from obhut.keystore.renewal import lost_controllers
from obhut.keystore.rotation import EpochStatus, Rotation, Status
from obhut.keystore.subjects import Keyring
from obhut.postgres.control import open_control

app = App(
    name="keys",
    help="Look after the keys of people in audit logs: one random key a person, wrapped by an epoch key of the controller, wrapped in the "
    "key store. The format is specified in docs/spec/audit-log-keys.md.",
)

ControllerArgument = Annotated[str | None, Parameter(help='Id of the controller, as "obhut controllers list" shows it.')]


@app.command
def status(controller: ControllerArgument = None) -> None:
    """Show each controller's epoch, how many people have a key, how many were erased, and how many of those are not final yet.

    An erasure is final when the key that wrapped the person's key is destroyed: until then an older copy of the control database and the
    key store together could give it back. Asks the key store whether it serves, too.
    """
    here = context()
    with _opened(here) as keyring:
        keyring.driver.check()
        found = rotation.status(keyring, controller)
        if controller is not None and not found:
            raise KeyMissingError("the controller has no keys", "They are made when its first change is logged.")
    here.output.result({"driver": keyring.driver.kind, "controllers": found}, lambda: _show(here, found, epochs=controller is not None))


@app.command
def rotate(
    controller: ControllerArgument = None,
    *,
    due: Annotated[
        bool,
        Parameter(negative="", help="All controllers whose epoch is older than keystore.rotate_every and lost a key: for a timer."),
    ] = False,
    at_once: Annotated[
        bool,
        Parameter(
            negative="", help="Destroy the old wrapping key now and not after keystore.grace. Copy the control database right after."
        ),
    ] = False,
) -> None:
    """Open a new epoch: wrap the survivors anew, and destroy the old wrapping key, which makes older copies of the key table worthless.

    The old key stays for keystore.grace, so that a copy of the control database is made that opens under the new one; --due destroys it
    then.
    An interrupted rotation is continued.

    Examples: obhut keys rotate ctl_01m8; obhut keys rotate --due
    """
    here = context()
    if (controller is None) != due or (due and at_once):
        raise UsageError("a controller or --due is wanted, and not both; --at-once needs a controller", 'See "obhut keys rotate --help".')
    settings = here.settings.keystore
    with _opened(here) as keyring:
        if controller is None:
            done, ended = rotation.rotate_due(keyring, settings)
        else:
            grace = settings.grace * (not at_once)
            done, ended = [rotation.rotate(keyring, controller, grace=grace, copies_kept=settings.copies_kept)], []
    document = {"rotated": done, "destroyed": [{"controller": one, "epoch": number, "final_on": final} for one, number, final in ended]}
    here.output.result(document, lambda: _show_rotated(here, done, len(ended)))


@app.command
def reconcile() -> None:
    """Compare the key table with the erasure list, and destroy again what a restored control database has brought back.

    Until then no key is handed out: the key store remembers how many destructions there were. Recover the erasure list first.
    """
    here = context()
    open_control(here.settings)
    done = _reconcile(here)
    here.output.result(
        done,
        lambda: here.output.say(
            "{people} erased people looked up; {destroyed} keys were back and are destroyed again.",
            people=done.people,
            destroyed=done.destroyed,
        ),
    )


@app.command
def renew(
    *,
    accept_loss: Annotated[
        bool, Parameter(negative="", help="Give up values that were sealed under keys that do not open any more.")
    ] = False,
) -> None:
    """Begin anew for controllers whose wrapping key was destroyed: after a restore of a control database older than the last rotation.

    What was sealed under their keys stays unreadable. New changes are logged under new keys, and the erasure list is applied again, so
    that nobody who was erased gets a key. Without --accept-loss it only names the controllers.
    """
    here = context()
    with _opened(here) as keyring:
        lost = lost_controllers(keyring)
        done = renewal.renew(keyring, lost) if accept_loss else []
        if done:
            rotation.destroy_due(keyring, copies_kept=here.settings.keystore.copies_kept)
    if done:
        _reconcile(here)
    here.output.result(
        {"lost": lost, "renewed": done},
        lambda: here.output.say(
            "{count} controllers have lost their wrapping key; {done} begin anew, {people} keys are given up.",
            count=len(lost),
            done=len(done),
            people=sum(one.lost for one in done),
        ),
    )


def _reconcile(here: Context) -> Reconciled:
    ledger.open_ledger(here.settings)
    shredder = Shredder(here.settings)
    try:
        return shredder.reconcile(here.clock)
    finally:
        shredder.close()


@contextmanager
def _opened(here: Context) -> Iterator[Keyring]:
    open_control(here.settings)
    with Keyring(here.settings, clock=here.clock) as keyring:
        yield keyring


def _show(here: Context, found: list[Status], *, epochs: bool) -> None:
    here.output.table(
        ["controller", "epoch", "since", "people with a key", "erased", "not final"],
        [(one.controller, one.epoch, one.since, one.active, one.erased, one.not_final) for one in found],
        empty="There are no keys yet; they are made when changes are logged.",
    )
    for one in found if epochs else []:
        here.output.table(["epoch", "state", "opened", "destroyed after", "final on"], [_epoch_row(epoch) for epoch in one.epochs])


def _epoch_row(epoch: EpochStatus) -> tuple[object, ...]:
    return epoch.number, epoch.state, epoch.opened_at, epoch.destroy_after, epoch.final_on


def _show_rotated(here: Context, done: list[Rotation], ended: int) -> None:
    for one in done:
        here.output.say(
            "Controller {controller}: epoch {epoch} is open, {survivors} keys wrapped anew.",
            controller=one.controller,
            epoch=one.epoch,
            survivors=one.survivors,
        )
        for number, final in one.destroyed:
            here.output.say("The key of epoch {number} is destroyed; final on {final}.", number=number, final=final)
        if one.closed and not one.destroyed:
            here.output.say('Its old key stays until copies of the control database catch up; "obhut keys rotate --due" destroys it.')
    if ended:
        here.output.say("{count} old keys were destroyed.", count=ended)
    if not done and not ended:
        here.output.say("Nothing is due.")
