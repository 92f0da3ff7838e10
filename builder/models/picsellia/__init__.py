"""The store on the Picsellia platform, through its own SDK.

What its SDK does (read from 6.37.0), and what is done about it here:

- Docker fields and parameters are readable only in the raw answer of `sync()`: they are read there.
- It repeats connection errors and nothing else, and POST too: `builder.models.transport` decides what may be
  repeated; what was made by a request whose answer was lost is looked for before it is made again.
- None is dropped from what it sends, so that a field cannot be cleared; `create_version` and `update` refuse
  MULTI, `update` also MASK: both are told before anything is written.
- Its own zip drops files deeper than two levels: folders are packed by `builder.models.folders`.
- Its lists are one page, as long as the platform makes it: pages are asked for until all is there.
- It hides failures of uploads in a log, and shows progress on standard error: both are kept from it.
"""

from __future__ import annotations

from builder.models.picsellia.store import Account, PicselliaStore

__all__ = ["Account", "PicselliaStore"]
