"""Inclusion and consistency proofs of RFC 6962, made from a reader of hashes and verified without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from obhut.auditlog.tlog.merkle import SIZE, WIDTH, node, reduce

# Returns a run of hashes of one level of tiles: level, index of the first, how many.
Reader = Callable[[int, int, int], bytes]


class ProofError(Exception):
    """A proof does not show what it should; says nothing about who is to blame."""


def of_leaves(hashes: bytes) -> Reader:
    """Return a reader over the leaf hashes of a whole tree, for callers that have them in memory."""
    levels = [hashes]

    def read(level: int, first: int, count: int) -> bytes:
        while len(levels) <= level:
            below = levels[-1]
            step = WIDTH * SIZE
            levels.append(b"".join([reduce(below[at : at + step]) for at in range(0, len(below) // step * step, step)]))
        return levels[level][first * SIZE : (first + count) * SIZE]

    return read


def subtree(read: Reader, start: int, end: int) -> bytes:
    """Return the root over leaves ``start`` to ``end`` (exclusive), where ``start`` is a multiple of the subtree's width."""
    width = end - start
    if width & (width - 1) == 0:  # complete: read it from the highest tile that has it
        height = width.bit_length() - 1
        level, rest = divmod(height, 8)
        first = start >> (8 * level)
        return reduce(read(level, first, 1 << rest))
    left = 1 << ((width - 1).bit_length() - 1)
    return node(subtree(read, start, start + left), subtree(read, start + left, end))


def inclusion(read: Reader, index: int, size: int) -> list[bytes]:
    """Return the path from a leaf's sibling up to the root's child.

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < middle:
            path.append(subtree(read, middle, end))
            end = middle
        else:
            path.append(subtree(read, start, middle))
            start = middle
    path.reverse()
    return path


def verify_inclusion(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in the tree.

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= index < size:
        raise ProofError("the tree has no such leaf")
    # RFC 9162, section 2.1.3.2.
    position, last, current = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            raise ProofError("the path is too long")
        if position & 1 or position == last:
            current = node(sibling, current)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            current = node(current, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise ProofError("the path is too short")
    if current != root:
        raise ProofError("the path leads to another root")


def consistency(read: Reader, old: int, size: int) -> list[bytes]:
    """Return the proof that a tree of ``size`` leaves begins with the tree of ``old`` leaves; empty where that needs none.

    Raises:
        ValueError: the old tree is larger than the new one.
    """
    if not 0 <= old <= size:
        raise ValueError("the old tree is larger than the new one")
    if old in {0, size}:
        return []
    path: list[bytes] = []
    start, end, whole = 0, size, True
    while old != end - start:
        middle = 1 << ((end - start - 1).bit_length() - 1)
        if old <= middle:
            path.append(subtree(read, start + middle, end))
            end = start + middle
        else:
            path.append(subtree(read, start, start + middle))
            start, old, whole = start + middle, old - middle, False
    if not whole:
        path.append(subtree(read, start, end))
    path.reverse()
    return path


def verify_consistency(  # noqa: C901 - the algorithm as RFC 9162 prints it
    old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]
) -> None:
    """Check that the tree of ``size`` leaves begins with the tree of ``old`` leaves.

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= old <= size:
        raise ProofError("the old tree is larger than the new one")
    if old in {0, size}:
        if path or (old == size and old_root != root):
            raise ProofError("the roots differ" if not path else "a proof where none is needed")
        return
    if not path:
        raise ProofError("the proof is empty")
    # RFC 9162, section 2.1.4.2.
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    position, last = old - 1, size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if position & 1 or position == last:
            first, second = node(sibling, first), node(sibling, second)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            second = node(second, sibling)
        position >>= 1
        last >>= 1
    if last:
        raise ProofError("the proof is too short")
    if first != old_root or second != root:
        raise ProofError("the proof leads to other roots")
