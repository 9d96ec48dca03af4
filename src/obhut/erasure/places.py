"""The places of the erasure list held together: control database, mirror, anchor, key store (specification, sections 1 and 6).

Order of every append, and why: the control database commits first, the mirror follows, the anchor comes last, and only then is the
caller told. A crash in between leaves the database ahead, which the next writer heals by copying forward; nobody was erased yet.
Were the mirror first, a crash would leave the mirror ahead, which is how a rolled-back database looks, the one finding that must stop
every restore. The writer's lock belongs to the session and spans all three steps, so mirror and anchor see appends in order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obhut.erasure import chain, notes, store
from obhut.erasure.entries import Private
from obhut.erasure.errors import (
    AnchorMissingError,
    ListBehindAnchorError,
    ListForkedError,
    ListMissingError,
    ListRolledBackError,
    ListSignatureError,
    MirrorDamagedError,
    MirrorMissingError,
    MirrorRolledBackError,
    UnsealError,
)
from obhut.erasure.mirror import MAX_COUNT, Mirror, Place, Segment, associated_data, frame, parse_private_lines, private_lines
from obhut.erasure.notes import Checkpoint
from obhut.erasure.store import SQL, Published, Stored
from obhut.foundation import faultpoints
from obhut.foundation.settings import Settings
from obhut.keystore import KeyState, LocalKeystore, open_keystore
from obhut.keystore.errors import KeyMissingError
from obhut.postgres import sql
from obhut.postgres.connections import Session
from obhut.postgres.control import control_url

LOCK: Final = 0x0B_48_4C_53
_NONCE_BYTES: Final = 12
_WAIT: Final = "60s"  # for another writer: longer than any batch, short enough to be told


class Tip(NamedTuple):
    """Where the mirror ends, and the head it holds there."""

    place: Place | None
    size: int
    hash: bytes


class Places:
    """The places of one installation's list. Usable from several threads; each has its own session."""

    def __init__(self, settings: Settings) -> None:
        self.state_directory = settings.state.directory
        self.mirror = Mirror(settings.erasure_list.mirror)
        self.settings = settings
        self._local = threading.local()
        self._keystore: LocalKeystore | None = None
        self.last: Stored | None = None  # the head after the last append of this process; another one may have appended since
        self._tip: Tip | None = None
        self._deferred: list[Published] = []
        self._anchor: tuple[str, Checkpoint] | None = None
        self.answers: dict[tuple[str, ...], tuple[int, Any]] = {}  # to questions about the whole list, with its size then

    # ---- access ----

    @property
    def keystore(self) -> LocalKeystore:
        """The key store, opened on first use."""
        if self._keystore is None:
            self._keystore = open_keystore(self.settings)
        return self._keystore

    @cached_property
    def _signing_key(self) -> Ed25519PrivateKey:
        return self.keystore.signing_key(notes.SIGNING_KEY_NAME)

    def session(self) -> Session:
        """Return this thread's session on the control database."""
        held: tuple[int, Session] | None = getattr(self._local, "held", None)
        # A forked child must not speak on its parent's connection.
        if held is None or held[0] != os.getpid() or held[1].closed:
            # Every statement here has its index; a plan cached while the tables were empty must not scan them when they are full.
            settings = {"synchronous_commit": "on", "lock_timeout": _WAIT, "enable_seqscan": "off", "jit": "off"}
            held = (os.getpid(), Session.connect(control_url(self.settings), application_name="obhut erasure list", settings=settings))
            self._local.held = held
        return held[1]

    def close(self) -> None:
        """Close this thread's session."""
        held: tuple[int, Session] | None = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            held[1].close()
        self._local.held = None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Hold the writer's lock: on database, mirror and anchor together.

        Raises:
            LockTimeoutError: another writer did not finish within a minute.
        """
        session = self.session()
        session.execute(SQL["lock"], (LOCK,))
        try:
            yield session
        except BaseException:
            # The lock goes with the session, whatever state a failed statement left it in.
            self.close()
            raise
        session.execute(SQL["unlock"], (LOCK,))

    @contextmanager
    def reading(self) -> Iterator[tuple[Session, Stored | None, Place | None, Checkpoint | None]]:
        """Hold one consistent state: a snapshot of the database, its head, where the mirror ends, and the anchor.

        The writer's lock is held only while these are fixed: a long verification holds up no erasure.
        """
        with ExitStack() as stack:
            with self.writing():
                # A session of its own: the snapshot outlives the lock.
                session = stack.enter_context(Session.connect(control_url(self.settings), application_name="obhut erasure list check"))
                stack.enter_context(session.transaction("repeatable read", read_only=True))
                fixed = store.stored(session), self.mirror.size_of_last(), self.anchor()
            yield session, *fixed

    @contextmanager
    def beside(self, session: Session) -> Iterator[Session]:
        """Open a second session that sees what a reading one sees."""
        snapshot = str(session.value("SELECT pg_export_snapshot()"))
        with (
            Session.connect(control_url(self.settings), application_name="obhut erasure list check") as second,
            second.transaction("repeatable read", read_only=True),
        ):
            second.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
            yield second

    def verifying_key(self) -> Ed25519PublicKey | None:
        """Return the key that checkpoints are verified with, or None when no list was ever signed here."""
        try:
            return self.keystore.verifying_key(notes.SIGNING_KEY_NAME)
        except KeyMissingError:
            return None

    def anchor(self) -> Checkpoint | None:
        """Return the anchored checkpoint, verified.

        Raises:
            AnchorMissingError: it cannot be read.
            ListSignatureError: it is not signed by the list's key.
        """
        path = self.state_directory / notes.ANCHOR_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            text = ""
        if self._anchor is None or self._anchor[0] != text:
            checkpoint = notes.read_anchor(self.state_directory, self.verifying_key())
            if checkpoint is None:
                return None
            self._anchor = (text, checkpoint)
        return self._anchor[1]

    # ---- appending ----

    def ready(self, session: Session, now: datetime, *, heal: bool = True) -> Stored:
        """Return the head of the list after making sure that appending to it is right; make the list when there is none.

        With ``heal`` the mirror is brought up to the list; without, the caller's own append does so.

        Raises:
            ErasureListError: a place lost entries, or holds another list.
        """
        anchor = self.anchor()
        beside = store.stored_beside(session, anchor.size if anchor else 0)
        head, at_anchor = beside or (self._create(session, anchor), None)
        if anchor is None:
            if head.size or self.mirror.files():
                raise AnchorMissingError(
                    "the anchor of the erasure list is missing although entries exist",
                    'Was the state directory replaced? Once that is clear, run "obhut erasures recover --accept-missing-anchor".',
                )
            # Written while the list is still empty: from the first entry on a missing anchor is always a loss.
            anchor = self._write_anchor(Checkpoint(head.origin, 0, head.hash, now))
        compare(head, anchor, head.hash if head.size == anchor.size else at_anchor)
        tip = self.tip(session, head, anchor)
        if tip.size < anchor.size:
            if not self.mirror.files():
                raise MirrorMissingError(
                    "the mirror of the erasure list is missing",
                    'Is its disk mounted? If it is lost, "obhut erasures recover" writes a new one from the list.',
                )
            raise MirrorRolledBackError(
                f"the mirror ends at entry {tip.size}, the anchor knows {anchor.size}",
                'Was the mirror restored from an older copy? "obhut erasures recover" completes it from the list.',
            )
        if heal and tip.size < head.size:
            self.publish(session, head, [], now)
        return head

    def defer(self, published: Sequence[Published]) -> None:
        """Keep entries that the mirror is to get with the next append."""
        self._deferred.extend(published)

    def take_deferred(self, fresh: Sequence[Published] = ()) -> list[Published]:
        """Return the deferred entries followed by fresh ones; only the fresh ones where another process wrote in between."""
        rows, self._deferred = [*self._deferred, *fresh], []
        contiguous = all(later.seq == earlier.seq + 1 for earlier, later in pairwise(rows))
        return rows if contiguous else list(fresh)

    def _create(self, session: Session, anchor: Checkpoint | None) -> Stored:
        if (anchor and anchor.size) or self.mirror.files():
            raise ListMissingError(
                "the control database holds no erasure list although mirror or anchor know one",
                'Was the control database replaced or emptied? "obhut erasures recover" rebuilds the list from the mirror.',
            )
        store.create(session, anchor.origin if anchor else chain.new_origin())
        head = store.stored(session)
        if head is None:
            raise ListMissingError("the erasure list could not be created")
        faultpoints.reach("erasure-list.created")
        return head

    def hash_at(self, session: Session, head: Stored, size: int) -> bytes | None:
        """Return the head that the list had at a size."""
        if size == 0:
            return chain.start(head.origin)
        found = session.value(SQL["hash_at"], (size,))
        return None if found is None else bytes(found)

    def tip(self, session: Session, head: Stored, anchor: Checkpoint) -> Tip:
        """Return where the mirror ends, cutting nothing: a torn end is left to the next append.

        Raises:
            MirrorDamagedError: what was acknowledged is incomplete.
            ListRolledBackError: the mirror knows entries that the list lost.
            ListForkedError: list and mirror differ.
        """
        end = self.mirror.size_of_last()
        if self._tip and self._tip.place == end and end is not None:
            return self._tip
        tail = self.mirror.tail(anchor.size)
        place, segment = tail.place, tail.segment
        tip = Tip(place, 0, chain.start(head.origin))
        if segment is not None:
            tip = self._tip_at(session, head, anchor, segment, place)
        if tip.size > head.size:
            known = self.hash_at(session, head, head.size)
            lost = ListBehindAnchorError if tip.size < anchor.size else ListRolledBackError
            raise lost(
                f"the list ends at entry {head.size}, the mirror knows {tip.size}" + ("" if known else ", and they differ"),
                'Was the control database restored from an older copy? "obhut erasures recover" completes it from the mirror.',
            )
        if self.hash_at(session, head, tip.size) != tip.hash:
            raise ListForkedError(f"list and mirror differ at entry {tip.size}")
        self._tip = tip
        return tip

    def _tip_at(self, session: Session, head: Stored, anchor: Checkpoint, segment: Segment, place: Place | None) -> Tip:
        """Return the tip at the last segment; one that was never acknowledged and does not verify is torn, so the tip lies before it."""
        try:
            checkpoint = self.checkpoint(segment, head.origin)
            before = self.hash_at(session, head, segment.first - 1)
            if segment.last > anchor.size and before is not None and verify_segment(before, segment) != checkpoint.hash:
                raise MirrorDamagedError("the last segment of the mirror does not verify")
        except (ListSignatureError, MirrorDamagedError):
            if segment.last <= anchor.size:
                raise
            known = self.hash_at(session, head, segment.first - 1)
            return Tip(segment.start, segment.first - 1, known or b"")
        return Tip(place, segment.last, checkpoint.hash)

    def checkpoint(self, segment: Segment, origin: str) -> Checkpoint:
        """Return the verified checkpoint of a segment.

        Raises:
            ListSignatureError: it is not signed by the list's key, or is about another list or size.
        """
        key = self.verifying_key()
        if key is None:
            raise ListSignatureError("the key store holds no key of the erasure list", "Is this the key store of this installation?")
        checkpoint = notes.open_note(segment.note, key)
        if checkpoint.origin != origin or checkpoint.size != segment.last:
            raise ListSignatureError(f"the checkpoint behind entry {segment.last} is about another list or size")
        return checkpoint

    def publish(self, session: Session, head: Stored, fresh: Sequence[Published], now: datetime) -> None:
        """Bring mirror and anchor up to the list.

        Args:
            session: holds the writer's lock.
            head: the list's head.
            fresh: the entries just appended, if the caller still has them.
            now: when the checkpoints are signed.

        Raises:
            MirrorUnwritableError: mirror or anchor cannot be written; the next writer tries again.
        """
        anchor = self.anchor()
        if anchor is None:
            raise AnchorMissingError("the anchor of the erasure list is missing")
        tip = self.tip(session, head, anchor)
        if tip.size == head.size == anchor.size:
            return
        while tip.size < head.size:
            rows: Sequence[Published] = fresh
            if not rows or rows[0].seq != tip.size + 1:
                rows = store.unpublished(session, tip.size, MAX_COUNT)
            for _, group in groupby(rows, key=lambda row: store.label_of(row.text)):
                items = list(group)
                for start in range(0, len(items), MAX_COUNT):
                    tip = self._append_segment(tip, head.origin, items[start : start + MAX_COUNT], now)
        faultpoints.reach("erasure-list.mirrored")
        self._write_anchor(Checkpoint(head.origin, head.size, head.hash, now))
        faultpoints.reach("erasure-list.anchored")

    def _append_segment(self, tip: Tip, origin: str, rows: Sequence[Published], now: datetime) -> Tip:
        label = store.label_of(rows[0].text)
        privates = [row.private for row in rows if row.private]
        sealed = (label, self._seal(label, origin, rows[0].seq, len(rows), privates)) if privates else None
        checkpoint = Checkpoint(origin, rows[-1].seq, rows[-1].hash, now)
        note = notes.sign(checkpoint, self._signing_key)
        parts = frame(rows[0].seq, [row.text for row in rows], sealed, note)
        self._tip = None  # not trusted again before the append is done
        place = self.mirror.append(tip.place, f"{now:%Y-%m}.segments", parts)
        self._tip = Tip(place, rows[-1].seq, rows[-1].hash)
        return self._tip

    def _write_anchor(self, checkpoint: Checkpoint) -> Checkpoint:
        note = notes.sign(checkpoint, self._signing_key)
        notes.write_anchor(self.state_directory, note)
        self._anchor = (note, checkpoint)
        return checkpoint

    def write_anchor(self, head: Stored, now: datetime) -> None:
        """Set the anchor to the list's head; for recovery only."""
        self._write_anchor(Checkpoint(head.origin, head.size, head.hash, now))

    # ---- private parts ----

    def _seal(self, label: str, origin: str, first: int, count: int, privates: Sequence[Private]) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        cipher = AESGCM(self.keystore.data_key(label))
        return nonce + cipher.encrypt(nonce, private_lines(privates), associated_data(origin, first, count))

    def open_sealed(self, segment: Segment, origin: str) -> bytes | None:
        """Return the lines of the private parts of a segment, or None when their data key was destroyed.

        Raises:
            UnsealError: they do not open although the key should be there.
        """
        if segment.sealed is None or segment.label is None:
            return b""
        if self.keystore.state(segment.label) in {KeyState.DESTROYED, KeyState.DESTROYING}:
            return None
        try:
            cipher = AESGCM(self.keystore.data_key(segment.label, create=False))
            data = associated_data(origin, segment.first, len(segment.entries))
            return cipher.decrypt(segment.sealed[:_NONCE_BYTES], segment.sealed[_NONCE_BYTES:], data)
        except (InvalidTag, ValueError, KeyMissingError):
            raise _unopened(segment) from None

    def private_parts(self, segment: Segment, plain: bytes) -> list[Private]:
        """Return the private parts of the lines that :meth:`open_sealed` returned.

        Raises:
            UnsealError: they are not of this form.
        """
        try:
            return parse_private_lines(plain)
        except ValueError:
            raise _unopened(segment) from None

    def unseal(self, segment: Segment, origin: str) -> list[Private] | None:
        """Return the private parts of a segment, or None when their data key was destroyed.

        Raises:
            UnsealError: they do not open although the key should be there.
        """
        plain = self.open_sealed(segment, origin)
        return None if plain is None else self.private_parts(segment, plain)


def compare(head: Stored, anchor: Checkpoint, at_anchor: bytes | None) -> None:
    """Refuse when the list is behind the anchor or another one.

    Args:
        head: of the list.
        anchor: the newest checkpoint that was anchored.
        at_anchor: head that the list had at the anchor's size; None where it has no such entry.

    Raises:
        ListForkedError: other list, or another history.
        ListRolledBackError: the list is older than the anchor.
    """
    if anchor.origin != head.origin:
        raise ListForkedError("list and anchor belong to different lists", "Do control URL and state directory belong to one installation?")
    if head.size < anchor.size:
        raise ListRolledBackError(
            f"the list ends at entry {head.size}, the anchor knows {anchor.size}",
            'Was the control database restored from an older copy? "obhut erasures recover" completes it from the mirror.',
        )
    if at_anchor != anchor.hash:
        raise ListForkedError(f"list and anchor differ at entry {anchor.size}")


def _unopened(segment: Segment) -> UnsealError:
    return UnsealError(
        f"the private parts of the mirror from entry {segment.first} do not open",
        "Does the key store belong to this list, and is it complete?",
    )


def verify_segment(before: bytes, segment: Segment) -> bytes:
    """Return the head after a segment, recomputed."""
    for text in segment.entries:
        before = chain.extend(before, text)
    return before
