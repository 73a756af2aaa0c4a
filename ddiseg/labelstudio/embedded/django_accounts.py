# mypy: ignore-errors
"""Script for Label Studio's own Python that creates its accounts; ddiseg never imports it.

Reads [{"email", "password", "token", "superuser"}, ...] from standard input: passwords must not
be process arguments, as `label-studio init` requires. Existing accounts get the given password and
token, and access by token is enabled for all.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django
import label_studio

sys.path.insert(0, str(Path(label_studio.__file__).parent))  # its modules import one another so
os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"
django.setup()

from django.db import transaction  # noqa: E402
from organizations.models import Organization  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402
from users.models import User  # noqa: E402


@transaction.atomic
def main() -> None:
    for account in json.load(sys.stdin):
        user = User.objects.filter(email=account["email"]).first() or User(email=account["email"])
        user.username = account["email"].split("@")[0]
        user.is_staff = user.is_superuser = account["superuser"]
        user.set_password(account["password"])
        user.save()
        Token.objects.filter(user=user).update(key=account["token"])  # made along with the user
        organization = Organization.objects.first() or Organization.create_organization(
            created_by=user, title="Label Studio"
        )
        organization.add_user(user)
        user.active_organization = organization
        user.save()
        organization.jwt.legacy_api_tokens_enabled = True
        organization.jwt.save()


main()
