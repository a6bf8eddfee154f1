"""Python's `websockets` as the client of our server."""

import asyncio
import unittest

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from support import COMPRESSIONS, OFFERS, AsyncTest, OurServers, messages


class Client(AsyncTest):
    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.servers = OurServers()
        self.addresses = await self.servers.__aenter__()
        self.addAsyncCleanup(self.servers.__aexit__, None, None, None)

    def open(self, compression, path, offer="deflate", **options):
        return connect(
            self.addresses[compression] + path,
            compression=None,
            extensions=OFFERS[offer],
            max_size=4 << 20,
            **options,
        )

    async def test_every_message_comes_back(self):
        for compression in COMPRESSIONS:
            for offer in OFFERS:
                with self.subTest(ours=compression, theirs=offer):
                    async with self.open(compression, "/echo", offer) as ws:
                        agreed = [e.name for e in ws.protocol.extensions]
                        both = compression != "plain" and offer != "plain"
                        self.assertEqual(agreed, ["permessage-deflate"] if both else [])
                        for message in messages():
                            await ws.send(message)
                            self.assertTrue(await ws.recv() == message)
                    self.assertEqual((ws.close_code, ws.close_reason), (1000, ""))

    async def test_fragments_and_a_ping_between_them(self):
        for compression in COMPRESSIONS:
            async with self.open(compression, "/echo") as ws:

                async def parts():
                    yield "one "
                    yield ""
                    pong = await ws.ping("between")
                    await pong
                    yield "message"

                await ws.send(parts())
                self.assertEqual(await ws.recv(), "one message")

    async def test_our_pings_are_answered(self):
        async with self.open("deflate", "/pings") as ws:
            await ws.send("are you there?")
            self.assertEqual(await ws.recv(), "are you there?")

    async def test_codes_and_reasons_go_both_ways(self):
        async with self.open("plain", "/echo") as ws:
            await ws.close(4001, "enough")
            self.assertEqual((ws.close_code, ws.close_reason), (4001, ""))
        for code, reason in [(1000, ""), (1001, "later"), (4999, "x" * 123)]:
            async with self.open("plain", f"/close?{code}={reason}") as ws:
                await ws.wait_closed()
                self.assertEqual((ws.close_code, ws.close_reason), (code, reason))

    async def test_a_connection_that_is_cut_off(self):
        async with self.open("plain", "/torn?whole") as ws:
            self.assertEqual(await ws.recv(), "whole")
            with self.assertRaises(ConnectionClosedError):
                await ws.recv()
            self.assertEqual(ws.close_code, 1006)

    async def test_subprotocols(self):
        for wanted, chosen in [
            (["chat.v1", "chat.v2"], "chat.v1"),
            (["other", "chat.v2"], "chat.v2"),
            (["other"], None),
        ]:
            async with self.open("plain", "/echo", subprotocols=wanted) as ws:
                self.assertEqual(ws.subprotocol, chosen)

    async def test_refusals(self):
        with self.assertRaises(InvalidStatus) as refused:
            await self.open("plain", "/refused")
        response = refused.exception.response
        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.headers["WWW-Authenticate"], 'Bearer realm="interop"')
        self.assertEqual(response.body, b"no token\n")

    async def test_origins(self):
        path = "/only?http://good.test"
        with self.assertRaises(InvalidStatus) as refused:
            await self.open("plain", path, origin="http://evil.test")
        self.assertEqual(refused.exception.response.status_code, 403)
        async with self.open("plain", path, origin="http://good.test"):
            pass

    async def test_many_connections_at_once(self):
        async def one(number):
            async with self.open("deflate", "/echo") as ws:
                for turn in range(10):
                    await ws.send(f"{number}: {turn}")
                    self.assertEqual(await ws.recv(), f"{number}: {turn}")

        await asyncio.gather(*(one(number) for number in range(50)))


if __name__ == "__main__":
    unittest.main()
