"""Why the demo stops before its end."""

from __future__ import annotations

from obhut.foundation.errors import ObhutError


class DemoFolderError(ObhutError):
    """The folder holds something that the demo did not put there."""

    code = "demo-folder-foreign"


class DemoRunningError(ObhutError):
    """Another demo is playing in the same folder."""

    code = "demo-running"


class DemoFailedError(ObhutError):
    """The story took another turn than it must: something that Obhut promises did not hold."""

    code = "demo-failed"
