"""The places of tiles: a directory and a bucket keep the same contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from obhut.auditlog.errors import LogStoreError
from obhut.auditlog.store import Bucket, Directory, Store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Give the address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Give an empty store of each kind."""
    if request.param == "directory":
        return Directory(tmp_path / "log")
    import boto3

    address = request.getfixturevalue("endpoint")
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"log-{tmp_path.name.replace('_', '-').lower()}"[:63].rstrip("-")
    place = {"LocationConstraint": "eu-central-1"}
    boto3.client("s3", region_name="eu-central-1", endpoint_url=address).create_bucket(Bucket=name, CreateBucketConfiguration=place)
    return Bucket.connect(f"s3://{name}/audit")


def test_what_is_put_is_read(store: Store) -> None:
    assert store.read("a/checkpoint") is None
    store.put("a/checkpoint", b"one")
    store.put("a/checkpoint", b"another")
    store.sync()
    assert store.read("a/checkpoint") == b"another"
    assert store.read("a/checkpoint", 2) == b"an"


def test_a_file_grows_at_its_committed_end(store: Store) -> None:
    """What a crash left behind the end is overwritten and cut off."""
    store.append("a/tile/0", 0, b"committed, torn tail")
    store.append("a/tile/0", 9, b" and more")
    store.sync()
    assert store.read("a/tile/0") == b"committed and more"
    with pytest.raises(LogStoreError, match="shorter"):
        store.append("a/tile/0", 100, b"x")
    assert store.read("a/tile/0") == b"committed and more"


def test_names_are_listed_renamed_and_removed(store: Store) -> None:
    for path in ("a/2026-11/checkpoint", "a/2026-11/tile/0/000", "a/2026-12/checkpoint", "ab"):
        store.put(path, b"x")
    assert store.children("a") == ["2026-11", "2026-12"]
    assert store.children("a/2026-11") == ["checkpoint", "tile"]
    assert store.children("nowhere") == []
    store.rename("a/2026-12/checkpoint", "a/2026-12/final")
    store.rename("a/2026-12/checkpoint", "a/2026-12/final")  # done already
    assert store.children("a/2026-12") == ["final"]
    store.remove("a/2026-11")
    store.remove("a/2026-11")
    assert store.children("a") == ["2026-12"]
    store.remove("ab")
    assert store.read("ab") is None
    assert store.read("a/2026-12/final") == b"x", "a name that begins alike is another"
