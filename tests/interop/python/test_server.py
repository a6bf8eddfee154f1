"""Python's `websockets` as the server of our client."""

import asyncio
import http
import unittest

from websockets.asyncio.server import serve

from support import DEADLINE, SERVERS, AsyncTest, our_client


class Server(AsyncTest):
    async def scene(self, scene, compression, handler, theirs="deflate", **options):
        """Plays `handler` for our client; what that printed, and how the connection ended."""
        ended = asyncio.get_running_loop().create_future()

        async def connection(ws):
            await handler(ws)
            await ws.wait_closed()
            ended.set_result((ws.close_code, ws.close_reason))

        options = {"subprotocols": ["chat.v1"], "max_size": 4 << 20, **options}
        async with serve(
            connection, "127.0.0.1", 0, compression=None, extensions=SERVERS[theirs], **options
        ) as server:
            port = server.sockets[0].getsockname()[1]
            said = await our_client(scene, compression, f"ws://127.0.0.1:{port}/")
            if scene == "refused":
                return said, None
            return said, await asyncio.wait_for(ended, DEADLINE)

    async def test_every_message_comes_back(self):
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        for theirs in SERVERS:
            for ours in SERVERS:
                # Our client insists on compression where it offers it, so that it is seen to be used.
                if (theirs == "plain") != (ours == "plain"):
                    continue
                with self.subTest(theirs=theirs, ours=ours):
                    said, ended = await self.scene("echo", ours, echo, theirs)
                    self.assertEqual(said, ["subprotocol chat.v1"])
                    self.assertEqual(ended, (1000, ""))

    async def test_fragments_and_a_ping_between_them(self):
        async def handler(ws):
            async def parts():
                yield "in "
                await (await ws.ping("between"))
                yield "parts"

            await ws.send(parts())
            await ws.close(4000, "that was it")

        for theirs in ["plain", "deflate"]:
            said, _ = await self.scene("closed", theirs, handler, theirs)
            self.assertEqual(said[1:], ["message in parts", "closed 4000 that was it"])

    async def test_our_pings_are_answered(self):
        async def handler(ws):
            pass

        _, ended = await self.scene("ping", "deflate", handler)
        self.assertEqual(ended, (1000, ""))

    async def test_our_code_and_reason_come_through(self):
        async def handler(ws):
            pass

        _, ended = await self.scene("close", "deflate", handler)
        self.assertEqual(ended, (4001, "Auf Wiedersehen, Jürgen"))

    async def test_a_refusal_is_read(self):
        def refuse(connection, request):
            assert request.headers["Origin"] == "http://interop.test"
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not from there\n")

        async def handler(ws):
            pass

        said, _ = await self.scene("refused", "plain", handler, process_request=refuse)
        self.assertEqual(said, ["refused 403 not from there"])


if __name__ == "__main__":
    unittest.main()
