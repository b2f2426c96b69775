"""The descriptor pool of this protocol, apart from protobuf's default one.

LocalAI's own `backend_pb2` puts messages of the same names into the default pool, which takes each
name once. In a pool of its own, ours can live in the same process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pool import DescriptorPool

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

POOL: Final = DescriptorPool()
"""Has the messages of `backend_pb2` and `fleet_pb2`, once they are imported."""


def pool_of(*files: FileDescriptor) -> DescriptorPool:
    """Return a new pool with *files*, for server reflection over several services.

    Their dependencies have to come before them. Raises TypeError when two define the same name.
    """
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.serialized_pb)
    return pool
