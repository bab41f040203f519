"""An HTTP server on one port that comes back on the same port and leaves nothing behind."""

from __future__ import annotations

import os
import ssl

from aiohttp import web
from aiohttp.typedefs import Handler

from engine.errors import ConfigError

_MAX_BODY = 1 << 20


@web.middleware
async def no_traceback(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A reply that was dropped on demand is no error of the server."""
    try:
        return await handler(request)
    except ConnectionResetError:
        return web.Response(status=500)


def application() -> web.Application:
    return web.Application(client_max_size=_MAX_BODY, middlewares=[no_traceback])


class Server:
    """Serves an application on ``host``; port 0 takes any free one."""

    def __init__(self, app: web.Application, host: str) -> None:
        self._host = host
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handle_signals=False)

    async def start(self, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listen and return the port; :class:`ConfigError` when it is taken."""
        if self._runner.server is None:
            await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, port, ssl_context=context, backlog=512, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            # The event loops word this error each in its own way.
            reason = os.strerror(error.errno) if error.errno else str(error)
            await site.stop()
            raise ConfigError(f"cannot listen on {self._host}:{port}: {reason}; name another port") from error
        bound: int = self._runner.addresses[-1][1]
        return bound

    async def stop(self) -> None:
        await self._runner.cleanup()
