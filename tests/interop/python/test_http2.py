"""HTTP/2 by Python's `h2`, with the frames of Python's `websockets`: as the client of our server, and
as the server of our client."""

import asyncio
import contextlib
import unittest

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from websockets.frames import CloseCode, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol

from support import DEADLINE, AsyncTest, OurServers, messages, our_client


class Http2:
    """One end of an HTTP/2 connection, with its streams as queues of events."""

    def __init__(self, reader, writer, client):
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if not client:
            self.h2.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.streams, self.incoming = {}, asyncio.Queue()
        self.settings, self.room = asyncio.Event(), asyncio.Condition()
        self.terminated = None
        self.flush()
        self.task = asyncio.create_task(self.read())

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def read(self):
        while data := await self.reader.read(65_536):
            for event in self.h2.receive_data(data):
                if isinstance(event, RemoteSettingsChanged):
                    self.settings.set()
                elif isinstance(event, ConnectionTerminated):
                    self.terminated = event
                elif isinstance(event, RequestReceived):
                    self.streams[event.stream_id] = asyncio.Queue()
                    self.incoming.put_nowait(event)
                elif isinstance(event, (DataReceived, ResponseReceived, StreamEnded, StreamReset)):
                    self.streams[event.stream_id].put_nowait(event)
            self.flush()
            async with self.room:
                self.room.notify_all()
        for queue in [self.incoming, *self.streams.values()]:
            queue.put_nowait(None)

    async def event(self, stream):
        return await asyncio.wait_for(self.streams[stream].get(), DEADLINE)

    async def send(self, stream, data, end=False):
        """As much as there is room for, until all is sent."""
        view = memoryview(data)
        while view:
            window = self.h2.local_flow_control_window(stream)
            size = min(window, self.h2.max_outbound_frame_size, len(view))
            if size == 0:
                async with self.room:
                    await asyncio.wait_for(self.room.wait(), DEADLINE)
                continue
            self.h2.send_data(stream, bytes(view[:size]))
            view = view[size:]
            self.flush()
        if end:
            # Not where the other end has given it up already.
            with contextlib.suppress(StreamClosedError):
                self.h2.end_stream(stream)
            self.flush()

    def request(self, authority, path, *, protocol="websocket", headers=()):
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = asyncio.Queue()
        self.h2.send_headers(
            stream,
            [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "http"),
                (":path", path),
                (":authority", authority),
                ("sec-websocket-version", "13"),
                *headers,
            ],
        )
        self.flush()
        return stream

    def close(self):
        self.task.cancel()
        self.writer.close()


class WebSocket:
    """The frames of one stream."""

    def __init__(self, http2, stream, side):
        self.http2, self.stream = http2, stream
        self.frames = Protocol(side, state=OPEN, max_size=4 << 20)
        self.ended = self.reset = None

    async def flush(self):
        for data in self.frames.data_to_send():
            # An empty one is where TCP would be half-closed.
            await self.http2.send(self.stream, data, end=data == b"")

    async def send(self, message):
        if isinstance(message, str):
            self.frames.send_text(message.encode())
        else:
            self.frames.send_binary(message)
        await self.flush()

    async def close(self, code, reason):
        self.frames.send_close(code, reason)
        await self.flush()

    async def frames_received(self):
        """Until the stream is at its end."""
        while event := await self.http2.event(self.stream):
            if isinstance(event, DataReceived):
                self.frames.receive_data(event.data)
                size = event.flow_controlled_length
                self.http2.h2.acknowledge_received_data(size, self.stream)
                self.http2.flush()
            elif isinstance(event, StreamEnded):
                self.ended = True
                self.frames.receive_eof()
            elif isinstance(event, StreamReset):
                self.reset = event.error_code
            await self.flush()
            for frame in self.frames.events_received():
                yield frame
            if self.ended or self.reset is not None:
                return

    async def message(self):
        """The next, whole."""
        payload, kind = b"", None
        async for frame in self.frames_received():
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                kind, payload = kind or frame.opcode, payload + frame.data
                if frame.fin:
                    return payload.decode() if kind == Opcode.TEXT else payload
        raise AssertionError(f"no message; reset: {self.reset}")

    async def drain(self):
        async for _ in self.frames_received():
            pass


class Client(AsyncTest):
    """`h2` as the client of our server."""

    async def asyncSetUp(self):
        await super().asyncSetUp()
        servers = OurServers()
        self.authority = (await servers.__aenter__())["http2"].removeprefix("ws://")
        self.addAsyncCleanup(servers.__aexit__, None, None, None)
        host, port = self.authority.split(":")
        self.http2 = Http2(*await asyncio.open_connection(host, port), client=True)
        self.addCleanup(self.http2.close)
        await asyncio.wait_for(self.http2.settings.wait(), DEADLINE)

    async def open(self, path, **options):
        stream = self.http2.request(self.authority, path, **options)
        response = await self.http2.event(stream)
        self.assertIsInstance(response, ResponseReceived)
        return stream, dict(response.headers)

    async def websocket(self, path, **options):
        stream, headers = await self.open(path, **options)
        self.assertEqual(headers[":status"], "200", headers)
        return WebSocket(self.http2, stream, CLIENT)

    async def test_the_setting_is_there(self):
        self.assertEqual(self.http2.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL], 1)

    async def test_every_message_comes_back_on_every_stream(self):
        async def talk():
            ws = await self.websocket("/echo")
            for message in messages():
                # It reads while it writes, or long ones would wait for each other.
                _, answer = await asyncio.gather(ws.send(message), ws.message())
                self.assertTrue(answer == message)
            await ws.close(CloseCode.NORMAL_CLOSURE, "enough")
            await ws.drain()
            self.assertTrue(ws.ended)
            self.assertEqual(ws.frames.close_code, 1000)

        await asyncio.gather(*(talk() for _ in range(5)))

    async def test_subprotocols_and_extensions(self):
        headers = [
            ("sec-websocket-protocol", "other, chat.v2"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ]
        _, answer = await self.open("/echo", headers=headers)
        self.assertEqual(answer["sec-websocket-protocol"], "chat.v2")
        self.assertTrue(answer["sec-websocket-extensions"].startswith("permessage-deflate"))
        for name in ["upgrade", "connection", "sec-websocket-accept"]:
            self.assertNotIn(name, answer)

    async def test_codes_and_reasons_come_through(self):
        ws = await self.websocket("/close?4321=because")
        await ws.drain()
        self.assertEqual((ws.frames.close_code, ws.frames.close_reason), (4321, "because"))
        self.assertTrue(ws.ended)

    async def test_refusals(self):
        for path, options, status in [
            ("/refused", {}, "401"),
            ("/only?https://a", {"headers": [("origin", "https://b")]}, "403"),
            ("/echo", {"protocol": "connect-udp"}, "501"),
        ]:
            _, headers = await self.open(path, **options)
            self.assertEqual(headers[":status"], status)
        await self.websocket("/echo")

    async def test_a_reset_and_an_end_leave_the_others_alone(self):
        gone, ended, stays = [await self.websocket("/echo") for _ in range(3)]
        self.http2.h2.reset_stream(gone.stream, ErrorCodes.CANCEL)
        self.http2.h2.end_stream(ended.stream)
        self.http2.flush()
        await ended.drain()
        await stays.send("still here")
        self.assertEqual(await stays.message(), "still here")

    async def test_what_breaks_off_is_reset(self):
        ws = await self.websocket("/torn?whole")
        self.assertEqual(await ws.message(), "whole")
        await ws.drain()
        self.assertTrue(ws.ended)
        self.assertEqual(ws.frames.close_code, 1006)

    async def test_a_bad_frame_is_answered_with_its_code(self):
        ws = await self.websocket("/echo")
        # Not masked.
        await self.http2.send(ws.stream, b"\x81\x00")
        await ws.drain()
        self.assertEqual(ws.frames.close_rcvd.code, 1002)
        self.assertIsNone(self.http2.terminated)


class Server(AsyncTest):
    """`h2` as the server of our client."""

    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.tasks, self.seen = [], []

    async def connection(self, reader, writer):
        http2 = Http2(reader, writer, client=False)
        while request := await http2.incoming.get():
            self.tasks.append(asyncio.create_task(self.stream(http2, request)))
        http2.close()

    async def stream(self, http2, request):
        headers = dict(request.headers)
        self.seen.append(headers)
        if headers[":path"] != "/":
            http2.h2.send_headers(request.stream_id, [(":status", "401")])
            http2.h2.send_data(request.stream_id, b"no token\n", end_stream=True)
            http2.flush()
            return
        answer = [(":status", "200"), ("sec-websocket-protocol", "chat.v1")]
        http2.h2.send_headers(request.stream_id, answer)
        http2.flush()
        ws = WebSocket(http2, request.stream_id, SERVER)
        async for frame in ws.frames_received():
            if frame.opcode == Opcode.TEXT:
                await ws.send(frame.data.decode())
            elif frame.opcode == Opcode.BINARY:
                await ws.send(frame.data)

    async def test_our_client(self):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            lines = await our_client("http2", "plain", f"ws://127.0.0.1:{port}/")
        self.assertEqual(lines, ["subprotocol chat.v1"] * 3 + ["refused 401 no token"])
        for task in self.tasks:
            await task
        self.assertEqual(len(self.seen), 4)
        for headers in self.seen:
            self.assertEqual(headers[":method"], "CONNECT")
            self.assertEqual(headers[":protocol"], "websocket")
            self.assertEqual(headers[":scheme"], "http")
            self.assertEqual(headers[":authority"], f"127.0.0.1:{port}")
            self.assertEqual(headers["sec-websocket-version"], "13")
            self.assertEqual(headers["sec-websocket-protocol"], "chat.v2, chat.v1")
            self.assertEqual(headers["origin"], "http://interop.test")
            for name in ["upgrade", "connection", "host", "sec-websocket-key"]:
                self.assertNotIn(name, headers)


if __name__ == "__main__":
    unittest.main()
