"""The contract of key store drivers: a directory, a PKCS#11 token (SoftHSM2), AWS KMS (moto), a transit engine (OpenBao).

What moto does not enforce, so that a test of it shows nothing about AWS: it still encrypts and decrypts under a key that is scheduled for
deletion, and never deletes it. The driver refuses such a key itself, which is what these tests show; that AWS refuses it too, and forgets it on
the date, is AWS's documentation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.transit import TOKEN, Transit, serving

from obhut.foundation.settings import AwsSettings, Settings, TokenSettings, TransitSettings
from obhut.keystore import LocalKeystore
from obhut.keystore.drivers import Driver, Stage, transit
from obhut.keystore.drivers.aws import AwsDriver
from obhut.keystore.drivers.libraries import library
from obhut.keystore.drivers.local import LocalDriver
from obhut.keystore.drivers.token import TokenDriver
from obhut.keystore.drivers.transit import TransitDriver
from obhut.keystore.errors import (
    DriverError,
    DriverMissingError,
    KeyDestroyedError,
    KeyMissingError,
    KeystoreError,
    KeystorePermissionsError,
    KeyWrapError,
)
from obhut.keystore.subjects import Ended, Erased, Keyring

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "1234-pin"
NAME = "audit/ctl_01m8/1"
Opener = Callable[[], Driver]


@pytest.fixture(scope="module")
def secrets(workplace: Path) -> Path:
    """Give a directory with a file for each password, open to their owner only."""
    directory = workplace / "secrets"
    directory.mkdir(mode=0o700)
    for name, text in {"pin": PIN, "token": TOKEN}.items():
        (directory / name).write_text(text + "\n", encoding="utf-8")
        (directory / name).chmod(0o600)
    return directory


@pytest.fixture(scope="session")
def tokens(workplace: Path) -> Path:
    """Give a directory of SoftHSM tokens, made known to this process before the module is loaded; a machine without it fails."""
    if not SOFTHSM.exists():
        pytest.fail("no SoftHSM2; tools/debian.sh installs it")
    directory = workplace / "tokens"
    directory.mkdir(mode=0o700)
    (workplace / "softhsm2.conf").write_text(f"directories.tokendir = {directory}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(workplace / "softhsm2.conf")
    init = ["softhsm2-util", "--init-token", "--free", "--label", "obhut", "--pin", PIN, "--so-pin", "5678-so"]
    subprocess.run(init, check=True, capture_output=True, timeout=60)
    return directory


@dataclass
class Service:
    """A store and how to open it anew, as another process would."""

    kind: str
    open: Opener


@pytest.fixture(scope="module")
def engine() -> Iterator[Transit]:
    """Give one transit engine for all tests."""
    with serving() as made:
        yield made


@pytest.fixture(scope="module", params=["local", "pkcs11", "aws", "transit"])
def service(request: pytest.FixtureRequest, workplace: Path, secrets: Path) -> Iterator[Service]:
    """Give each store once; names of keys differ by test."""
    if request.param == "local":
        yield Service("local", lambda: LocalDriver(LocalKeystore(workplace / "driver-keys")))
    elif request.param == "pkcs11":
        request.getfixturevalue("tokens")
        yield Service("pkcs11", lambda: TokenDriver(TokenSettings(module=SOFTHSM, pin_file=secrets / "pin")))
    elif request.param == "aws":
        with kms() as settings:
            yield Service("aws", lambda: AwsDriver(settings))
    else:
        engine: Transit = request.getfixturevalue("engine")
        settings = TransitSettings(url=engine.url, token_file=secrets / "token")
        yield Service("transit", lambda: TransitDriver(settings))


class kms:  # noqa: N801 - reads as a noun in a with statement
    """moto's KMS on this machine, with credentials that mean nothing elsewhere."""

    def __enter__(self) -> AwsSettings:
        """Serve."""
        from moto.server import ThreadedMotoServer

        self._patch = pytest.MonkeyPatch()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            self._patch.setenv(name, "testing")
        self._patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, port = self._server.get_host_and_port()
        return AwsSettings(region="eu-central-1", endpoint=f"http://127.0.0.1:{port}")

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.stop()
        self._patch.undo()


def test_what_is_wrapped_opens_in_another_process_in_its_context_only(service: Service) -> None:
    """Two wrappings differ, and neither opens under another key, in another context, or with a byte changed."""
    store = service.open()
    store.check()
    for name in (NAME, "audit/unassigned:courses/1"):
        assert store.state(name).stage is Stage.ABSENT
        store.create(name)
        store.create(name)
        assert store.state(name).stage is Stage.ACTIVE
    blob = store.wrap(NAME, b"k" * 32, b"context")
    assert blob != store.wrap(NAME, b"k" * 32, b"context")
    assert b"k" * 32 not in blob
    assert service.open().unwrap(NAME, blob, b"context") == b"k" * 32
    assert store.unwrap(NAME, store.wrap(NAME, b"l" * 4096, b""), b"") == b"l" * 4096
    middle = len(blob) - 10
    swapped = blob[:middle] + bytes([blob[middle] ^ 1 if blob[middle] != ord("A") else ord("B")]) + blob[middle + 1 :]
    for name, wrong, context in (
        (NAME, blob, b"other"),
        ("audit/unassigned:courses/1", blob, b"context"),
        (NAME, swapped, b"context"),
        (NAME, blob[:20], b"context"),
        (NAME, b"", b"context"),
    ):
        # moto answers "access denied" where AWS says that the ciphertext is invalid or that the key is another one: not opened either way.
        refused = (KeyWrapError, DriverError) if service.kind == "aws" and (name != NAME or len(wrong) < len(blob)) else KeyWrapError
        with pytest.raises(refused):
            store.unwrap(name, wrong, context)
    for plain in (b"", b"x" * 4097):
        with pytest.raises(KeystoreError):
            store.wrap(NAME, plain, b"")


def test_a_destroyed_key_stays_destroyed(service: Service) -> None:
    """Nothing opens any more, in no process; the name is never used again; the moment from which it is final is told, and does not move."""
    store, name = service.open(), "audit/ctl_01m9/7"
    store.create(name)
    blob = store.wrap(name, b"k" * 32, b"context")
    final = store.destroy(name)
    waits = timedelta(days=7) if service.kind == "aws" else timedelta()
    assert abs(final - datetime.now(UTC) - waits) < timedelta(minutes=10)
    for opened in (store, service.open()):
        assert opened.state(name).stage is Stage.DESTROYED
        assert opened.state(name).final_on == final
        for use in (
            lambda opened=opened: opened.unwrap(name, blob, b"context"),
            lambda opened=opened: opened.wrap(name, b"k" * 32, b""),
            lambda opened=opened: opened.create(name),
        ):
            with pytest.raises(KeyDestroyedError):
                use()
        assert opened.destroy(name) == final


def test_a_key_that_never_was_is_not_taken_for_a_destroyed_one(service: Service) -> None:
    """Never made and destroyed are different answers; using the name makes no key."""
    store, name = service.open(), "audit/ctl_never/1"
    for use in (lambda: store.wrap(name, b"k", b""), lambda: store.unwrap(name, b"vault:v1:AAAA", b""), lambda: store.destroy(name)):
        with pytest.raises(KeyMissingError):
            use()
    assert store.state(name).stage is Stage.ABSENT
    for name in ("", "a b", "../x", "x" * 121):
        with pytest.raises(KeystoreError):
            store.create(name)


def test_the_whole_key_table_works_on_every_store(service: Service, control: Settings) -> None:
    """Subject keys are made, destroyed and rotated under each store."""
    from obhut.controllers.vocabulary import SubjectRef
    from obhut.keystore import rotation

    ada, bob = SubjectRef("user", ("1",)), SubjectRef("user", ("2",))
    controller = f"ctl_{service.kind}"
    with Keyring(control, driver=service.open()) as keys:
        made = keys.keys({controller: [ada, bob]})[controller]
        from obhut.keystore.destruction import destroy

        destroy(keys, {controller: [Ended(ada, datetime.now(UTC))]})
        done = rotation.rotate(keys, controller, grace=timedelta(), copies_kept=timedelta())
        assert done.survivors == 1
        assert len(done.destroyed) == 1
    with Keyring(control, driver=service.open()) as later:
        assert later.keys({controller: [ada, bob]})[controller] == {ada: Erased(made[ada].id), bob: made[bob]}


def test_a_destruction_that_was_killed_is_refused_and_finished(secrets: Path, tokens: Path, engine: Transit) -> None:
    """After the marker the key is refused though it is there still; the next call destroys it. The same for token and engine."""
    stores: list[Driver] = [
        TransitDriver(TransitSettings(url=engine.url, token_file=secrets / "token")),
        TokenDriver(TokenSettings(module=SOFTHSM, pin_file=secrets / "pin")),
    ]
    name = "audit/ctl_killed/1"
    for store in stores:
        store.create(name)
        blob = store.wrap(name, b"k" * 32, b"")
        _killed(store, name)
        with pytest.raises(KeyDestroyedError):
            store.unwrap(name, blob, b"")
        if isinstance(store, TransitDriver):
            assert engine.call("GET", f"transit/keys/{transit._path(name)}") == 200
        store.destroy(name)
        store.destroy(name)
    assert engine.call("GET", f"transit/keys/{transit._path(name)}") == 404, "the key itself has gone"


def _killed(store: Driver, name: str) -> None:
    """Do what destroy() had done when it was killed behind the marker."""
    if isinstance(store, TransitDriver):
        store._make(transit._path(name) + transit._MARK)
    elif isinstance(store, TokenDriver):
        with store._session() as session:
            store._set_mark(session, name)


def test_the_engine_must_not_let_keys_out(secrets: Path, engine: Transit) -> None:
    """A key that somebody made exportable is not used; a sealed engine, a wrong token and no engine are told apart from a missing key."""
    settings = TransitSettings(url=engine.url, token_file=secrets / "token")
    store = TransitDriver(settings)
    store.create("loose")
    assert engine.call("POST", "transit/keys/loose/config", {"exportable": True}) == 200
    with pytest.raises(DriverError, match="lets a key out"):
        store.wrap("loose", b"k", b"")
    values = {"plaintext": "aGFsbG8="}
    assert engine.call("POST", "transit/encrypt/nobody-made-it", values, TOKEN) == 403, "the documented rights make no key by encrypting"
    engine.seal()
    with pytest.raises(DriverError, match="503"):
        store.check()
    engine.unseal()
    wrong = secrets / "wrong"
    wrong.write_text("s.other")
    wrong.chmod(0o600)
    with pytest.raises(DriverError, match="does not let the token in"):
        TransitDriver(TransitSettings(url=engine.url, token_file=wrong)).check()
    wrong.chmod(0o644)
    with pytest.raises(KeystorePermissionsError):
        TransitDriver(TransitSettings(url=engine.url, token_file=wrong)).check()
    with pytest.raises(DriverError, match="does not answer"):
        TransitDriver(TransitSettings(url="http://127.0.0.1:1", token_file=secrets / "token")).check()
    with pytest.raises(KeystoreError, match="not given"):
        TransitDriver(TransitSettings(url=engine.url)).check()


def test_a_token_with_the_wrong_pin_or_label_says_so(secrets: Path, tokens: Path) -> None:
    """What a token answers is an error of the store with a code, never a traceback of its library, and never the PIN."""
    wrong = secrets / "wrong-pin"
    wrong.write_text("0000-not-it")
    wrong.chmod(0o600)
    for settings in (
        TokenSettings(module=SOFTHSM, pin_file=wrong),
        TokenSettings(module=SOFTHSM, token="another", pin_file=secrets / "pin"),
        TokenSettings(module=Path("/nowhere.so"), pin_file=secrets / "pin"),
    ):
        with pytest.raises(DriverError) as caught:
            TokenDriver(settings).check()
        assert "0000" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


def test_moto_would_go_on_using_a_key_that_is_scheduled_for_deletion() -> None:
    """Why the driver asks for the state before each use: when this fails, moto has learnt it, and the note above can go."""
    boto3 = library("boto3")
    with kms() as settings:
        store = AwsDriver(settings)
        store.create(NAME)
        blob = store.wrap(NAME, b"k" * 32, b"")
        store.destroy(NAME)
        client = boto3.client("kms", region_name="eu-central-1", endpoint_url=settings.endpoint)
        assert client.decrypt(CiphertextBlob=blob, EncryptionContext={"obhut": ""})["Plaintext"] == b"k" * 32
        client.cancel_key_deletion(KeyId=client.describe_key(KeyId="alias/obhut/audit/ctl_01m8/1")["KeyMetadata"]["KeyId"])
        with pytest.raises(DriverError, match="Disabled"):
            store.unwrap(NAME, blob, b"")


def test_a_driver_without_its_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is imported when the driver is opened, and its absence is a refusal with a hint."""
    monkeypatch.setitem(__import__("sys").modules, "pkcs11", None)
    with pytest.raises(DriverMissingError) as caught:
        TokenDriver(TokenSettings())
    assert caught.value.hint is not None and "obhut[pkcs11]" in caught.value.hint
    assert shutil.which("softhsm2-util")
