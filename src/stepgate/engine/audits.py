"""Audit bundles of runs, signed with this installation's key."""

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stepgate.domain.ids import RunId
from stepgate.engine import audit
from stepgate.engine.views import View
from stepgate.storage.database import Database
from stepgate.storage.reads.audit import evidence


class AuditKey(View):
    """The public half of the key that signs audit bundles here."""

    algorithm: str
    public_pem: str
    fingerprint: str


class Audits:
    """Reads of one database; `key` is fetched when it is first needed."""

    def __init__(self, database: Database, key: Callable[[], Ed25519PrivateKey]) -> None:
        self._database = database
        self._key = key

    async def export(self, run_id: RunId) -> bytes:
        """The run's bundle, canonical JSON. Raises NotFound, IntegrityError for a run that does not fit together."""
        found = await evidence(self._database, run_id)
        # A long run takes seconds to fold, check and sign.
        return await asyncio.to_thread(lambda: audit.export(run_id, *found, self._key()))

    def key(self) -> AuditKey:
        """What bundles from here are signed with."""
        public = self._key().public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return AuditKey(algorithm="ed25519", public_pem=pem, fingerprint=audit.fingerprint(public))
