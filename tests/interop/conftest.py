"""The programs in other languages, each built once a run."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.interop.support import ledgers, peers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def building() -> Iterator[dict[str, Future[peers.Peer]]]:
    with ThreadPoolExecutor() as pool:  # compilers run side by side
        yield {name: pool.submit(build) for name, build in peers.PEERS.items()}


@pytest.fixture(scope="module")
def ledger() -> ledgers.Ledger:
    return ledgers.Ledger()


@pytest.fixture(scope="module")
def good(ledger: ledgers.Ledger) -> Iterator[str]:
    with ledger.serving() as address:
        yield address
