"""``obhut audit``: the audit log, from its switch to what controllers get of it."""

from __future__ import annotations

from cyclopts import App

app = App(name="audit", help="Log every change of personal data, for each controller, provable and erasable.")

from obhut.cli.audit import capturing, log  # noqa: E402, F401 - the commands register themselves at the application above
