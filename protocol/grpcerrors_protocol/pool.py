"""The descriptor pool of this protocol, separate from protobuf's default pool.

The generated code of LocalAI, Triton and KServe defines messages with the same names in the default
pool, which accepts each name only once. With a separate pool, theirs and ours can be imported into
the same process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor_pool import DescriptorPool

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

POOL: Final = DescriptorPool()
"""Contains the messages of each generated module once it is imported."""


def pool_of(*files: FileDescriptor) -> DescriptorPool:
    """Return a new pool that contains *files*, for server reflection over several services.

    List the dependencies of a file before it. Raises TypeError if two files define the same name.
    """
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.serialized_pb)
    return pool
