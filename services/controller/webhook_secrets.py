"""The secrets that webhooks are signed with, from Secrets beside the BatchJobs.

Only Secrets of one type are used, so that nobody has a Secret used by naming it who may not read it.
"""

import base64
import binascii
from dataclasses import dataclass

from services.common.errors import Category, CortexError
from services.common.kubernetes import SECRETS, Cluster, Object

TYPE = "batch.cortex.dev/webhook"
SECRET_NOT_FOUND = "webhook.secret_not_found"  # noqa: S105  # a kind of error, no secret


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """Looks secrets up."""

    cluster: Cluster

    async def of(self, resource: Object) -> str:
        """The secret that a BatchJob's webhook refers to; "" without a webhook. Raises `CortexError`."""
        reference = (resource["spec"].get("webhook") or {}).get("secret_key_ref")
        if reference is None:
            return ""
        namespace, name = resource["metadata"]["namespace"], reference["name"]
        found = await self.cluster.get(SECRETS, namespace, name)
        if found is None or found.get("type") != TYPE:
            what = "there is no such Secret" if found is None else f"the Secret's type is {found.get('type')}"
            raise _unusable(f"{what}: make one of the type {TYPE} named {name} in {namespace}")
        data = found.get("data") or {}
        if reference["key"] not in data:
            raise _unusable(f"the Secret {name} has no key {reference['key']}")
        try:
            return base64.b64decode(data[reference["key"]]).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _unusable(f"the Secret {name} holds no text under {reference['key']}") from None


def _unusable(why: str) -> CortexError:
    return CortexError(SECRET_NOT_FOUND, f"webhook.secret_key_ref: {why}", Category.NOT_FOUND)
