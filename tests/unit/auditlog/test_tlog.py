"""Hashing, proofs, tiles and notes, against the definitions of RFC 6962 and against what C2SP's own examples show."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.auditlog.tlog import checkpoints, merkle, proofs, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint, ProofFile
from obhut.auditlog.tlog.proofs import ProofError
from obhut.foundation import notes
from obhut.foundation.notes import Note, NoteError, SignatureError


def leaf_hashes(count: int) -> list[bytes]:
    return merkle.leaves([b"entry %d" % number for number in range(count)])


def definition(hashes: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + definition(hashes[:k]) + definition(hashes[k:])).digest()


SIZES = st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 511, 512, 513, 767, 1000]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=6))
def test_an_edge_grows_to_the_root_of_the_definition(batches: list[int]) -> None:
    """Whatever the batches, root and tile hashes are those of the tree over all leaves."""
    hashes = leaf_hashes(sum(batches))
    edge, written, at = merkle.Edge(), {}, 0
    for batch in batches:
        for level, added in enumerate(edge.grow(b"".join(hashes[at : at + batch]))):
            written[level] = written.get(level, b"") + added
        at += batch
    assert edge.root() == definition(hashes) == merkle.root(b"".join(hashes))
    reader = proofs.of_leaves(b"".join(hashes))
    for level, content in written.items():
        assert content == reader(level, 0, len(hashes) >> (8 * level))
    assert merkle.Edge(edge.size, edge.tiles).root() == edge.root()


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_every_inclusion_proof_holds_for_its_leaf_only(size: int, data: st.DataObject) -> None:
    """A path shows its own leaf at its own index in its own tree, and nothing else."""
    index = data.draw(st.integers(0, size - 1))
    hashes = leaf_hashes(size)
    path = proofs.inclusion(proofs.of_leaves(b"".join(hashes)), index, size)
    root = definition(hashes)
    proofs.verify_inclusion(hashes[index], index, size, path, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index)) if size > 1 else None
    wrong = [(merkle.leaf(b"x"), index, path, root), (hashes[index], index, [*path, root], root), (hashes[index], index, path, b"r" * 32)]
    if other is not None:
        wrong += [(hashes[other], index, path, root), (hashes[index], index, path[:-1], root), (hashes[index], size, path, root)]
    for leaf, at, steps, top in wrong:
        with pytest.raises(ProofError):
            proofs.verify_inclusion(leaf, at, size, steps, top)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_every_consistency_proof_holds_for_its_two_trees_only(size: int, data: st.DataObject) -> None:
    """A proof shows that the larger tree begins with the smaller one; another old root is refused."""
    old = data.draw(st.integers(0, size))
    hashes = leaf_hashes(size)
    before, after = definition(hashes[:old]), definition(hashes)
    path = proofs.consistency(proofs.of_leaves(b"".join(hashes)), old, size)
    proofs.verify_consistency(old, before, size, after, path)
    if old > 0:
        with pytest.raises(ProofError):
            proofs.verify_consistency(old, b"x" * 32, size, after, path)
        with pytest.raises(ProofError):
            proofs.verify_consistency(old, before, size, after, [*path, after])
    with pytest.raises(ProofError):
        proofs.verify_consistency(size + 1, before, size, after, path)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_framed_entries_come_back(found: list[bytes]) -> None:
    """Framing loses nothing, and a bundle that ends inside an entry is not read as a shorter one."""
    content = tiles.frame(found)
    assert tiles.unframe(content) == found
    if found:
        assert tiles.unframe(content, 1) == found[:1]
        with pytest.raises(tiles.FrameError):
            tiles.unframe(content[:-1])
        with pytest.raises(tiles.FrameError):
            tiles.unframe(content, len(found) + 1)


def test_paths_of_tiles_are_those_of_the_specification() -> None:
    """The example of C2SP tlog-tiles: tile 1234067 of level 0."""
    assert tiles.path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tiles.path("entries", 0, 5) == "tile/entries/000.p/5"
    assert (tiles.count(70_000, 0), tiles.width(70_000, 0, 273), tiles.count(70_000, 1), tiles.width(70_000, 1, 1)) == (274, 112, 2, 17)


def test_the_note_of_the_specification_verifies() -> None:
    """The verifier key and the note that golang.org/x/mod documents; another text does not verify."""
    key = notes.parse_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = notes.parse(
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    note.signed_by(key)
    with pytest.raises(SignatureError):
        Note(note.text.replace("your problem is", "the answer is"), note.signatures).signed_by(key)
    assert str(key).startswith("PeterNeumann+c74f20a3+")


@pytest.mark.parametrize("key", [Ed25519PrivateKey.from_private_bytes(b"w" * 32), MLDSA44PrivateKey.from_seed_bytes(b"w" * 32)])
def test_a_cosignature_holds_for_its_checkpoint_and_time(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
    """Both kinds of cosignature come back from text and bind size, root and time."""
    log = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
    checkpoint = Checkpoint("obhut.audit-log/x", 3, b"r" * 32)
    line = checkpoints.cosign(checkpoint, "witness.example/w", key, 1_700_000_000)
    note = notes.parse(str(notes.with_signatures(Note(checkpoint.text, (checkpoints.sign(checkpoint, log),)), [line])))
    known = notes.parse_key(str(checkpoints.cosigner("witness.example/w", key)))
    assert checkpoints.cosigned_at(note, known) == 1_700_000_000
    other = Note(Checkpoint("obhut.audit-log/x", 4, b"r" * 32).text, note.signatures)
    with pytest.raises(SignatureError):
        checkpoints.cosigned_at(other, known)


def test_a_proof_file_comes_back_and_shows_its_entry() -> None:
    """The file of C2SP tlog-proof with extra data; a changed entry is not shown."""
    hashes = leaf_hashes(5)
    checkpoint = Checkpoint("obhut.audit-log/x", 5, definition(hashes))
    log = Ed25519PrivateKey.from_private_bytes(b"l" * 32)
    path = proofs.inclusion(proofs.of_leaves(b"".join(hashes)), 4, 5)
    proof = ProofFile(4, tuple(path), Note(checkpoint.text, (checkpoints.sign(checkpoint, log),)), b"entry 4")
    again = checkpoints.parse_proof(str(proof))
    assert again == proof
    again.verify(merkle.leaf(again.extra))
    with pytest.raises(ProofError):
        again.verify(merkle.leaf(b"entry 5"))


@pytest.mark.parametrize("text", ["", "a\n2\nxx\n\n— a AAAA\n", "c2sp.org/tlog-proof@v1\nindex 01\n\na\n\n— a AAAAAAA=\n"])
def test_what_is_no_note_is_refused(text: str) -> None:
    """Texts that only look like one are refused, not guessed at."""
    with pytest.raises(NoteError):
        Checkpoint.of(notes.parse(text)) if not text.startswith("c2sp") else checkpoints.parse_proof(text)
