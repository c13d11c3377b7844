"""What a command writes: the beginning of each stream is kept, the rest counted, none of it waited for."""

import asyncio
import os
from collections.abc import Callable

from stepgate.workspace.redaction import Redactor

_CHUNK = 1 << 16


class Stream:
    """Reads one pipe on the event loop until its last writer is gone; `data` holds at most `keep` bytes.

    A `redactor` takes secrets out before anything is kept or seen.
    """

    def __init__(
        self,
        name: str,
        descriptor: int,
        keep: int,
        seen: Callable[[str, bytes], None] | None,
        count: Callable[[int], None],
        redactor: Redactor | None = None,
    ) -> None:
        self.name = name
        self.data = bytearray()
        self.truncated = False
        self.ended = asyncio.Event()
        self._descriptor = descriptor
        self._keep = keep
        self._seen = seen
        self._count = count
        self._redactor = redactor
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not piece:
            if self._redactor is not None:
                self._take(self._redactor.end())
            self.close()
            return
        self._count(len(piece))
        self._take(piece if self._redactor is None else self._redactor.feed(piece))

    def _take(self, piece: bytes) -> None:
        # Cut only here, where no secret can be cut in two any more.
        kept = piece[: self._keep - len(self.data)]
        self.truncated = self.truncated or len(kept) < len(piece)
        self.data += kept
        if piece and self._seen is not None:
            self._seen(self.name, piece)

    def close(self) -> None:
        """Stops reading; doing it twice is harmless."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self.ended.set()
