"""Where epoch keys are wrapped: a directory, a PKCS#11 token, AWS KMS, or Vault and OpenBao's transit engine.

A driver never lets a key out of its store, never makes a key under a name whose key was destroyed, and never calls a key destroyed
that could still be used: it says from when on that is final.
"""

from obhut.keystore.drivers.driver import Driver, KeyStatus, Stage
from obhut.keystore.drivers.opening import open_driver

__all__ = ["Driver", "KeyStatus", "Stage", "open_driver"]
