"""Settings of the embedded Label Studio, which are environment variables."""

from __future__ import annotations

import os
import secrets

from annotation_protocol.files import PRIVATE, atomic_write
from ddiseg.labelstudio.folder import Folder

HOST = "127.0.0.1"

#: Variables passed on. Label Studio takes many names without a prefix (HOST, PORT, DEBUG, CI,
#: USERNAME, PASSWORD, DATABASE_NAME ...) for its own settings, so no others are.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def ensure_key(folder: Folder) -> None:
    """Create the key with which Label Studio signs logins, once.

    Without one it generates its own, but loses those that begin with a dollar sign, and everyone has
    to log in again after a restart.
    """
    path = folder.data / ".env"
    if not path.exists():
        atomic_write(path, f"SECRET_KEY={secrets.token_hex(32)}\n", mode=PRIVATE)


def environment_variables(folder: Folder) -> dict[str, str]:
    """Return the complete environment of Label Studio's processes; it holds no secret."""
    settings = {
        "BASE_DATA_DIR": str(folder.data),
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(folder.media),
        "ALLOWED_HOSTS": f"{HOST},localhost",
        # Other users of this machine must not create an account and see patients.
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # Nothing leaves this machine.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "CONVERTER_DOWNLOAD_RESOURCES": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        # Webhooks and the ML backend are on this machine, which it refuses by default.
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_BLOCK_LOCAL_IP": "false",
    }
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PYTHONUNBUFFERED": "1",
        **{f"LABEL_STUDIO_{name}": value for name, value in settings.items()},
    }
