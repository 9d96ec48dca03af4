"""The settings module that mypy's Django plugin asks for; Obhut itself configures Django at run time (obhut.postgres.control)."""

from pathlib import Path

_PACKAGES = Path(__file__).parent.parent / "src" / "obhut"

INSTALLED_APPS = [".".join(("obhut", *app.parent.relative_to(_PACKAGES).parts)) for app in sorted(_PACKAGES.rglob("apps.py"))]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql"}}
SECRET_KEY = "only for the type checker"  # noqa: S105 - nothing is signed with it
USE_TZ = True
