"""The one place where an error's code becomes the exit status of a command (documented in ``docs/reference/errors.md``)."""

from __future__ import annotations

from enum import IntEnum

from obhut.foundation.errors import ObhutError


class Exit(IntEnum):
    """Exit status of every command."""

    OK = 0
    FAILURE = 1  # something broke: the database, the machine, a bug
    USAGE = 2  # the command line or a file that people write is wrong
    REFUSED = 3  # a safeguard said no; nothing was changed
    NOT_INSTRUCTED = 4  # no documented instruction of the controller permits it
    UNPROVEN = 5  # a check, verification or promise failed
    PARTIAL = 6  # begun and not finished; resume it
    INTERRUPTED = 130  # Ctrl-C


class UsageError(ObhutError):
    """The command line cannot be understood."""

    code = "usage"


class Interrupted(ObhutError):  # noqa: N818 - says what happened; it is not an error of anything
    """The person at the terminal stopped the command."""

    code = "interrupted"


# Codes that are not named here follow the code of their base class, and at last exit with 1.
STATUS: dict[str, Exit] = {
    # wrong on the command line or in a file that people write
    "usage": Exit.USAGE,
    "settings-invalid": Exit.USAGE,
    "datamap-unreadable": Exit.USAGE,
    "datamap-invalid": Exit.USAGE,
    "fides-invalid": Exit.USAGE,
    "datamap-reference": Exit.USAGE,
    "datamap-snapshot": Exit.USAGE,
    "canary-rule": Exit.USAGE,
    "register-invalid": Exit.USAGE,
    "controller-unknown": Exit.USAGE,
    "contract-unknown": Exit.USAGE,
    "instruction-unknown": Exit.USAGE,
    "run-unknown": Exit.USAGE,
    "tombstone-missing": Exit.USAGE,
    "retention-rule-invalid": Exit.USAGE,
    "retention-rule-unknown": Exit.USAGE,
    "retention-hold-invalid": Exit.USAGE,
    "restore-target-invalid": Exit.USAGE,
    "clone-subset-invalid": Exit.USAGE,
    # a safeguard said no
    "settings-exist": Exit.REFUSED,
    "file-exists": Exit.REFUSED,
    "component-missing": Exit.REFUSED,
    "control-not-separate": Exit.REFUSED,
    "control-schema-behind": Exit.REFUSED,
    "cluster-directory-closed": Exit.REFUSED,
    "controller-exists": Exit.REFUSED,
    "keystore-permissions": Exit.REFUSED,
    "erasure-refused": Exit.REFUSED,
    "tombstone-move-illegal": Exit.REFUSED,
    "tombstone-copy-may-exist": Exit.REFUSED,
    "run-busy": Exit.REFUSED,
    "run-state": Exit.REFUSED,
    "backup-busy": Exit.REFUSED,
    "backup-slot-taken": Exit.REFUSED,
    "backup-none": Exit.REFUSED,
    "backup-key-gone": Exit.REFUSED,
    "backup-clocks-disagree": Exit.REFUSED,
    "backup-server-unsuitable": Exit.REFUSED,
    "restore-refused": Exit.REFUSED,
    "retention-refused": Exit.REFUSED,
    "finality-refused": Exit.REFUSED,
    "audit-server-unsuitable": Exit.REFUSED,
    "audit-not-enabled": Exit.REFUSED,
    "audit-capture-busy": Exit.REFUSED,
    "restore-state": Exit.REFUSED,
    "restore-target-not-empty": Exit.REFUSED,
    "clone-refused": Exit.REFUSED,
    "clone-overtaken": Exit.REFUSED,
    "clone-fixture-refused": Exit.REFUSED,
    "demo-folder-foreign": Exit.REFUSED,
    "demo-running": Exit.REFUSED,
    "not-instructed": Exit.NOT_INSTRUCTED,
    "audit-keys-rolled-back": Exit.REFUSED,
    "keystore-driver-missing": Exit.REFUSED,
    "audit-subject-erased": Exit.REFUSED,
    "audit-log-unknown": Exit.USAGE,
    "audit-log-rolled-back": Exit.REFUSED,
    "audit-log-forked": Exit.REFUSED,
    "audit-entry-refused": Exit.REFUSED,
    "audit-witness-refused": Exit.REFUSED,
    # something that must hold does not
    "audit-log-damaged": Exit.UNPROVEN,
    "audit-bundle-invalid": Exit.UNPROVEN,
    "erasure-incomplete": Exit.UNPROVEN,
    "erasure-list-failed": Exit.UNPROVEN,
    "erasure-mirror-unwritable": Exit.FAILURE,
    "erasure-list-not-open": Exit.FAILURE,
    "erasure-entry-invalid": Exit.FAILURE,
    "backup-unhealthy": Exit.UNPROVEN,
    "backup-chain-broken": Exit.UNPROVEN,
    "backup-manifest-invalid": Exit.UNPROVEN,
    "backup-seal-broken": Exit.UNPROVEN,
    "backup-tampered": Exit.UNPROVEN,
    "wal-invalid": Exit.UNPROVEN,
    "restore-quarantine-unusable": Exit.UNPROVEN,
    "restore-recovery-missed": Exit.UNPROVEN,
    "restore-not-proved": Exit.UNPROVEN,
    "restore-schema-leak": Exit.UNPROVEN,
    "audit-capture-unhealthy": Exit.UNPROVEN,
    "certificate-invalid": Exit.UNPROVEN,
    "certificate-differs": Exit.UNPROVEN,
    "clone-leak": Exit.UNPROVEN,
    "clone-mark-invalid": Exit.UNPROVEN,
    "clone-not-anonymous": Exit.UNPROVEN,
    "demo-failed": Exit.UNPROVEN,
    "audit-seal-broken": Exit.UNPROVEN,
    "audit-key-commitment": Exit.UNPROVEN,
    # begun, journalled, to be resumed
    "restore-stream-failed": Exit.PARTIAL,
    "retention-notice-failed": Exit.PARTIAL,
    "finality-incomplete": Exit.PARTIAL,
    "audit-keys-held": Exit.PARTIAL,
    "interrupted": Exit.INTERRUPTED,
}


def status(error: ObhutError) -> Exit:
    """Return the exit status for an error; a subclass without an entry of its own inherits its parent's."""
    for kind in type(error).__mro__:
        code = vars(kind).get("code")
        if code in STATUS:
            return STATUS[code]
    return Exit.FAILURE
