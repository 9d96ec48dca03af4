"""Promise *at-rest*: everything stored is encrypted, and the keys live in a private key store.

Hands out keys by purpose and label, and destroys them so that "never existed", "active" and "destroyed" stay three different
answers. Never writes a key in clear beside the data it protects, never takes a passphrase from an argument list, never makes a new
key under a label whose key was destroyed, and never logs key material.
"""

from obhut.keystore.local import LocalKeystore, open_keystore
from obhut.keystore.store import KeyState, Keystore

__all__ = ["KeyState", "Keystore", "LocalKeystore", "open_keystore"]
