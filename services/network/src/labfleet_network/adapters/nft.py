"""nftables through libnftables in this process: no fork for a port."""

import asyncio
import ctypes
import ctypes.util
import threading

from labfleet_proto.errors import InternalError

_LIBRARY = "libnftables.so.1"


class Nft:
    """One context of libnftables; one command at a time."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL(_LIBRARY)
        except OSError as exc:
            raise InternalError(f"{_LIBRARY} is missing: apt-get install libnftables1") from exc
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_free.argtypes = (ctypes.c_void_p,)
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._context: ctypes.c_void_p | None = ctypes.c_void_p(self._lib.nft_ctx_new(0))
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str) -> str:
        """Run commands as one transaction and return what they print. Raises InternalError."""
        with self._lock:
            if self._context is None:
                raise InternalError("nft: its network namespace is gone")
            failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
            said = self._lib.nft_ctx_get_error_buffer(self._context) or b""
            out = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        if failed:
            first = said.decode(errors="replace").strip().splitlines()
            raise InternalError(f"nft: {first[0] if first else 'failed'}: {commands[:200]}")
        text: str = out.decode(errors="replace")
        return text

    def close(self) -> None:
        """Close its netlink socket, which keeps the network namespace alive that it was made in."""
        with self._lock:
            self._lib.nft_ctx_free(self._context)
            self._context = None

    async def command(self, commands: str) -> str:
        """As `run`, off the loop."""
        return await asyncio.to_thread(self.run, commands)

    def try_run(self, commands: str) -> bool:
        """Run commands whose failure means "already so"."""
        try:
            self.run(commands)
        except InternalError:
            return False
        return True
