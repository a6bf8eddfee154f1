"""What the Python SDK tests share: the server, recorded events, and a line that can be cut."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
import unittest
import urllib.request
import uuid

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler


def server(variable):
    """Where a server is; ../README.md says how to start it by hand."""
    url = os.environ.get(variable, "").rstrip("/")
    if not url:
        raise SystemExit("%s is not set: let `cargo xtask test sdk` start the servers,"
                         " or see ../README.md" % variable)
    return url


# A `tautline dev`, and a server with the options of ../server.toml.
SERVER = server("TAUTLINE_URL")
CONFIGURED = server("TAUTLINE_CONFIGURED_URL")
API_KEY = os.environ.get("TAUTLINE_API_KEY", "dev")
# What tokens for the latter are signed with; the file has the same.
SECRET, AUDIENCE = "the tests sign with this, and with nothing else", "sdk-tests"

# Patience with a loaded machine, not an expectation of speed.
DEADLINE = 10.0


def fresh_channel():
    """A channel nobody used before, so that tests cannot meet."""
    return "py-%s" % uuid.uuid4()


def token(secret=SECRET, **claims):
    """A token for the configured server, HS256; with `channel`, a subscription token."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    header = json.dumps({"alg": "HS256", "typ": "JWT"}).encode()
    text = part(header) + "." + part(json.dumps({"aud": AUDIENCE, **claims}).encode())
    return text + "." + part(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))


def in_seconds(seconds):
    """Unix time so many seconds from now, as claims have it: never less than asked for."""
    return int(time.time()) + 1 + seconds


def post(path, body, url=SERVER):
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-API-Key": API_KEY})
    # Whatever proxy the environment names is not meant for loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=DEADLINE) as response:
        return json.load(response)


async def api(method, url=SERVER, **parameters):
    """Calls a method of the server API; fails unless it succeeds."""
    answer = await asyncio.to_thread(post, "/api/" + method, parameters, url)
    if "result" not in answer:
        raise AssertionError("%s answered %s" % (method, answer))
    return answer["result"]


async def dev_token(name, user):
    return (await asyncio.to_thread(post, "/dev/token", {"name": name, "user": user}))["token"]


async def until(condition, what, seconds=DEADLINE):
    """Returns once `condition()` is true; fails with `what` at the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        if loop.time() > end:
            raise AssertionError("waited %g s for %s" % (seconds, what))
        await asyncio.sleep(0.005)


class ClientEvents(ClientEventHandler):
    """Everything that happened to a client, in lists."""

    def __init__(self):
        self.connecting, self.connected, self.disconnected = [], [], []
        # Of server-side subscriptions.
        self.subscribed, self.unsubscribed, self.publications = [], [], []

    async def on_connecting(self, ctx):
        self.connecting.append(ctx)

    async def on_connected(self, ctx):
        self.connected.append(ctx)

    async def on_disconnected(self, ctx):
        self.disconnected.append(ctx)

    async def on_subscribed(self, ctx):
        self.subscribed.append(ctx)

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.append(ctx)

    async def on_publication(self, ctx):
        self.publications.append(ctx)


class SubscriptionEvents(SubscriptionEventHandler):
    """Everything that happened to a subscription, in lists."""

    def __init__(self):
        self.subscribing, self.subscribed, self.unsubscribed = [], [], []
        self.publications, self.joins, self.leaves = [], [], []

    async def on_subscribing(self, ctx):
        self.subscribing.append(ctx)

    async def on_subscribed(self, ctx):
        self.subscribed.append(ctx)

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.append(ctx)

    async def on_publication(self, ctx):
        self.publications.append(ctx.pub)

    async def on_join(self, ctx):
        self.joins.append(ctx.info)

    async def on_leave(self, ctx):
        self.leaves.append(ctx.info)


class Line:
    """A loopback TCP relay to a server, whose connections can be cut at any moment."""

    @classmethod
    async def open(cls, url):
        self = cls()
        self._host, port = url.split("//")[1].split(":")
        self._port = int(port)
        self._writers = set()
        self._relays = set()
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = "ws://127.0.0.1:%d/connection/websocket" % port
        return self

    async def _relay(self, reader, writer):
        self._relays.add(asyncio.current_task())
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, upstream_writer}
        self._writers |= both

        async def pump(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.transport.abort()

        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))
        self._writers -= both
        for end in both:
            with contextlib.suppress(OSError):
                await end.wait_closed()

    def cut(self):
        """Both directions end at once; what was on its way is lost."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self):
        self._server.close()
        self.cut()
        await asyncio.gather(*self._relays)


class ServerTestCase(unittest.IsolatedAsyncioTestCase):
    """Clients and lines made here are gone when the test ends."""

    # What all clients of a test case have in common.
    OPTIONS = {}

    def new_client(self, endpoint=None, **options):
        endpoint = endpoint or SERVER.replace("http", "ws", 1) + "/connection/websocket"
        options = {"min_reconnect_delay": 0.005, "max_reconnect_delay": 0.1, **self.OPTIONS, **options}
        client = Client(endpoint, events=ClientEvents(), proxy=None, **options)
        self.addAsyncCleanup(client.disconnect)
        return client

    async def connected(self, **options):
        client = self.new_client(**options)
        await client.connect()
        await client.ready(DEADLINE)
        return client

    async def connected_as(self, name, user):
        return await self.connected(token=await dev_token(name, user))

    def new_configured_client(self, **options):
        endpoint = CONFIGURED.replace("http", "ws", 1) + "/connection/websocket"
        return self.new_client(endpoint=endpoint, **options)

    async def configured(self, user="ann", **options):
        """A connected client of the configured server."""
        options = {"token": token(sub=user), **options}
        client = self.new_client(**options) if "endpoint" in options else self.new_configured_client(**options)
        await client.connect()
        await client.ready(DEADLINE)
        return client

    async def subscribed(self, client, channel, **options):
        subscription = client.new_subscription(channel, events=SubscriptionEvents(), **options)
        await subscription.subscribe()
        await subscription.ready(DEADLINE)
        return subscription

    async def new_line(self, url=SERVER):
        line = await Line.open(url)
        self.addAsyncCleanup(line.close)
        return line
