"""The client's two long-lived secrets, and what each server gets to see of them.

A server is shown secrets that were made for it and for one storage index only, so that no server
can renew a lease, continue an upload or write a slot at another. Everything here is derived: the
same client comes back with the same secrets, whatever it forgot in a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.crypto import hashes
from lafsfs.grid.api import LeaseSecrets, SlotSecrets

if TYPE_CHECKING:
    from lafsfs.grid.api import StorageServer


@dataclass(frozen=True, slots=True)
class ClientSecrets:
    """The secrets of one client, as Tahoe keeps them in ``private/``.

    ``lease_secret``: leases and uploads are made from it. ``convergence_secret``: two clients that
    share it store equal files once; it is no server's business.
    """

    lease_secret: bytes = field(repr=False)
    convergence_secret: bytes = field(repr=False)

    def lease(self, storage_index: bytes, server: StorageServer) -> LeaseSecrets:
        """The secrets of our lease on everything under a storage index at one server."""
        renew, cancel = hashes.lease_secrets(self.lease_secret, storage_index, server.server_id)
        return LeaseSecrets(renew, cancel)

    def upload_secret(self, storage_index: bytes, server: StorageServer) -> bytes:
        """The 32 bytes that name our upload at one server, the same again after a crash."""
        return hashes.upload_secret(self.lease_secret, storage_index, server.server_id)

    def slot(self, write_key: bytes, storage_index: bytes, server: StorageServer) -> SlotSecrets:
        """What a write to a mutable slot shows one server. ``write_key``: the slot's 16 bytes."""
        enabler = hashes.ssk_write_enabler(write_key, server.server_id)
        return SlotSecrets(enabler, self.lease(storage_index, server))
