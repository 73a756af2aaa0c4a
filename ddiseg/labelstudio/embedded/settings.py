"""What the embedded Label Studio is told: its settings are environment variables."""

from __future__ import annotations

import os
import secrets

from ddiseg.labelstudio.folder import Folder, open_private

HOST = "127.0.0.1"

#: What it may know of the environment. No more: it takes many a name without a prefix (HOST, PORT,
#: DEBUG, CI, USERNAME, PASSWORD, DATABASE_NAME ...) for a setting of its own.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def ensure_key(folder: Folder) -> None:
    """Give Label Studio a key to sign logins with, once.

    It makes one itself where there is none, but forgets those that begin with a dollar sign, and then
    everyone has to log in again after a restart.
    """
    path = folder.data / ".env"
    if not path.exists():
        with open(open_private(path), "w", encoding="utf-8") as file:
            file.write(f"SECRET_KEY={secrets.token_hex(32)}\n")


def environment_variables(folder: Folder) -> dict[str, str]:
    """The whole environment of Label Studio's processes; it holds no secret."""
    settings = {
        "BASE_DATA_DIR": str(folder.data),
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(folder.media),
        "ALLOWED_HOSTS": f"{HOST},localhost",
        # Whoever else works on this machine must not make an account and look at patients.
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # Nothing leaves this machine.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "CONVERTER_DOWNLOAD_RESOURCES": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        # Webhooks and the model's server are on this machine, which it refuses otherwise.
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_BLOCK_LOCAL_IP": "false",
    }
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PYTHONUNBUFFERED": "1",
        **{f"LABEL_STUDIO_{name}": value for name, value in settings.items()},
    }
