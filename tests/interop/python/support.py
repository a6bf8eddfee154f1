"""What the tests share: our end, as a server that runs and as a client for one scene.

  INTEROP_PEER   the built program `interop-peer`

All of it: `cargo xtask test interop`.
"""

import asyncio
import os
import unittest

from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

PROGRAM = os.environ.get("INTEROP_PEER")
if not PROGRAM:
    raise SystemExit(
        "INTEROP_PEER is not set: build it with `cargo build --package interop-peer` and set it to "
        "target/debug/interop-peer, or let `cargo xtask test interop` do both"
    )

COMPRESSIONS = ["plain", "deflate", "alone", "narrow"]

# Patience with a busy machine, in seconds; nothing here takes long.
DEADLINE = 20

# What `websockets` offers and agrees to, by name. Compressing from the first byte on.
OFFERS = {
    "plain": [],
    "deflate": [ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    "alone": [
        ClientPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True
        )
    ],
    "narrow": [
        ClientPerMessageDeflateFactory(
            server_max_window_bits=9, client_max_window_bits=9
        )
    ],
}
SERVERS = {
    "plain": [],
    "deflate": [ServerPerMessageDeflateFactory()],
    "alone": [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True
        )
    ],
    "narrow": [
        ServerPerMessageDeflateFactory(
            server_max_window_bits=9, client_max_window_bits=9
        )
    ],
}


class AsyncTest(unittest.IsolatedAsyncioTestCase):
    """A test with a loop that isn't watched for slowness, which the base class has it be."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)


class OurServers:
    """Our servers, one for each form of compression and two for HTTP/2, while the block runs."""

    async def __aenter__(self):
        self.child = await asyncio.create_subprocess_exec(
            PROGRAM,
            "serve",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        addresses = {}
        for _ in [*COMPRESSIONS, "http2", "http2-tls"]:
            line = await asyncio.wait_for(self.child.stdout.readline(), DEADLINE)
            name, address = line.decode().split()
            addresses[name] = "ws://" + address
        return addresses

    async def __aexit__(self, *_):
        self.child.stdin.close()
        await self.child.wait()


async def our_client(scene, compression, url):
    """Our client in one scene; the lines that it printed, once it has ended well."""
    child = await asyncio.create_subprocess_exec(
        PROGRAM,
        scene,
        compression,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(child.communicate(), DEADLINE)
    except TimeoutError:
        child.kill()
        raise
    if child.returncode != 0:
        raise AssertionError(f'our client in "{scene}": {complained.decode()}')
    return said.decode().splitlines()


def messages():
    """All lengths where a frame's header changes, as text with characters of all lengths, and as
    bytes that don't compress."""
    lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20]
    words = ["Grüße", "κόσμε", "😀", '{"price":', "1024", " ", "\n", "\0"]
    noise = random_bytes(max(lengths))
    text = "".join(words[byte % len(words)] for byte in noise)
    return [text[:length] for length in lengths] + [noise[:length] for length in lengths]


def random_bytes(length):
    state, out = 1, bytearray()
    for _ in range(length):
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFF_FFFF
        out.append(state >> 24)
    return bytes(out)
