"""What every key store driver keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from obhut.keystore import KeyState, Keystore, LocalKeystore
from obhut.keystore.errors import KeyDestroyedError, KeyMissingError, KeystoreError, KeyWrapError

Opener = Callable[[], Keystore]


# A passphrase is stretched anew at each opening, which takes its time on purpose.
@pytest.fixture(params=["local", pytest.param("local with passphrase", marks=pytest.mark.slow)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Return a function that opens the same store anew, as another process would; one parameter per driver."""
    passphrase = b"correct horse battery staple" if "passphrase" in request.param else None
    return lambda: LocalKeystore(tmp_path / "keys", passphrase=passphrase)


class TestKeystoreContract:
    """The contract of :class:`obhut.keystore.store.Keystore`."""

    def test_a_wrapped_key_opens_for_its_purpose_only(self, opener: Opener) -> None:
        """Wrapping binds a key to its purpose, and two wrappings of one key differ."""
        store = opener()
        wrapped = store.wrap("backup", b"k" * 32)
        assert store.unwrap("backup", wrapped) == b"k" * 32
        assert wrapped != store.wrap("backup", b"k" * 32)
        with pytest.raises(KeyWrapError):
            store.unwrap("mirror", wrapped)

    @pytest.mark.parametrize("position", [0, 12, -1])
    def test_a_changed_byte_is_refused(self, opener: Opener, position: int) -> None:
        """A flipped bit in nonce, ciphertext or tag never yields a key."""
        store = opener()
        wrapped = bytearray(store.wrap("backup", b"k" * 32))
        wrapped[position] ^= 1
        with pytest.raises(KeyWrapError):
            store.unwrap("backup", bytes(wrapped))
        with pytest.raises(KeyWrapError):
            store.unwrap("backup", b"short")

    def test_keys_survive_reopening_and_differ_by_label(self, opener: Opener) -> None:
        """The same label is the same key in every process; another label or kind is another key."""
        first, second = opener(), opener()
        assert first.data_key("a") == second.data_key("a")
        assert len({first.data_key("a"), first.data_key("b"), first.mac_key("a"), first.mac_key("b")}) == 4
        assert first.mac_key("a") == opener().mac_key("a")

    def test_a_signature_verifies_with_the_public_key(self, opener: Opener) -> None:
        """The signing key is made on first use; its public half does not appear out of nothing."""
        store = opener()
        with pytest.raises(KeyMissingError):
            store.verifying_key("list")
        signature = store.signing_key("list").sign(b"text")
        opener().verifying_key("list").verify(signature, b"text")

    def test_never_active_and_destroyed_are_three_answers(self, opener: Opener) -> None:
        """A label that was never used, one in use and one destroyed are told apart, also by another process."""
        store, other = opener(), opener()
        assert store.state("2026-11-23") is KeyState.NEVER
        with pytest.raises(KeyMissingError):
            store.data_key("2026-11-23", create=False)
        with pytest.raises(KeyMissingError):
            store.destroy("2026-11-23")
        store.data_key("2026-11-23")
        assert other.data_key("2026-11-23") == store.data_key("2026-11-23")
        assert store.state("2026-11-23") is KeyState.ACTIVE
        store.destroy("2026-11-23")
        for who in (store, other, opener()):
            assert who.state("2026-11-23") is KeyState.DESTROYED
            with pytest.raises(KeyDestroyedError):
                who.data_key("2026-11-23")
        store.destroy("2026-11-23")
        assert store.labels() == [("2026-11-23", KeyState.DESTROYED)]

    def test_a_label_cannot_leave_the_store(self, opener: Opener) -> None:
        """Labels with path parts stay labels; unprintable or endless ones are refused."""
        store = opener()
        keys = {store.data_key(label) for label in ("../sign/x", "..", "a/b", "a%2Fb", ".", "list/2026-11-23")}
        assert len(keys) == 6
        assert ("../sign/x", KeyState.ACTIVE) in store.labels()
        for label in ("", "ä", "a\nb", "x" * 121):
            with pytest.raises(KeystoreError):
                store.data_key(label)
