"""The unmodified Python SDK over Protobuf, and its parts held against the golden files."""

import asyncio
import json
import pathlib
import unittest

from centrifuge import StreamPosition, fossil
from centrifuge.protocol import client_pb2

from support import ServerTestCase, api, fresh_channel, until

GOLDEN = pathlib.Path(__file__).parents[3] / "crates" / "protocol" / "tests" / "golden"


def rows(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


class Golden(unittest.TestCase):
    def test_messages_are_what_the_sdk_knows(self):
        """The SDK's schema comes from the protocol's authors: no field may be unknown to it."""
        count = 0
        for name, kind, text, digits in rows("messages.tsv"):
            data = bytes.fromhex(digits)
            message = getattr(client_pb2, kind)()
            message.ParseFromString(data[1 if data[0] < 128 else 3 if data[1] >= 128 else 2:])
            with self.subTest(name):
                self.assert_same(message, json.loads(text))
                count += 1
        self.assertGreaterEqual(count, 45)

    def assert_same(self, message, expected):
        """A message is its JSON form: payloads as text, defaults as good as absent."""
        known = message.DESCRIPTOR.fields_by_name
        for key, value in expected.items():
            if key not in known:
                self.assertIn(key, {"type"}, message.DESCRIPTOR.name)
                continue
            content = getattr(message, key)
            if isinstance(content, bytes):
                self.assertEqual(json.loads(content), value)
            elif isinstance(value, list):
                self.assertEqual(len(content), len(value))
                for one, other in zip(content, value):
                    self.assert_item(one, other)
            elif isinstance(value, dict) and known[key].message_type.GetOptions().map_entry:
                self.assertEqual(set(content), set(value))
                for name in value:
                    self.assert_item(content[name], value[name])
            else:
                self.assert_item(content, value)
        unset = {field.name for field, _ in message.ListFields()} - set(expected)
        self.assertEqual(unset, set(), message.DESCRIPTOR.name)

    def assert_item(self, content, value):
        if isinstance(value, dict):
            self.assert_same(content, value)
        else:
            self.assertEqual(content, value)

    def test_patches_are_what_the_sdk_applies(self):
        count = 0
        for base, target, ours, _ in rows("deltas.tsv"):
            made = fossil.apply_delta(bytes.fromhex(base), bytes.fromhex(ours))
            self.assertEqual(bytes(made).hex(), target)
            count += 1
        self.assertGreaterEqual(count, 20)


class Protobuf(ServerTestCase):
    async def reader(self, channel, **options):
        client = await self.connected(use_protobuf=True, **options)
        return client, await self.subscribed(client, channel)

    async def test_publications_between_both_encodings(self):
        channel = fresh_channel()
        _, binary = await self.reader(channel)
        text = await self.subscribed(await self.connected_as("Ben", "ben"), channel)
        data = {"text": "zażółć 水 🪢", "list": [1, None]}
        await binary.publish(json.dumps(data).encode())
        await text.publish(data)
        for reader in (binary, text):
            await until(lambda: len(reader.events.publications) == 2, "both publications")
        self.assertEqual([json.loads(p.data) for p in binary.events.publications], [data, data])
        self.assertEqual([p.data for p in text.events.publications], [data, data])
        self.assertEqual([p.offset for p in binary.events.publications], [1, 2])
        self.assertEqual(binary.events.publications[1].info.user, "ben")

    async def test_presence_and_history(self):
        channel = fresh_channel()
        client, subscription = await self.reader(channel)
        statistics = await subscription.presence_stats()
        self.assertEqual((statistics.num_clients, statistics.num_users), (1, 1))
        self.assertEqual(len((await subscription.presence()).clients), 1)
        for n in range(1, 6):
            await api("publish", channel=channel, data={"n": n}, tags={"lang": "en"})
        page = await subscription.history(limit=3)
        self.assertEqual([(p.offset, json.loads(p.data), p.tags) for p in page.publications],
                         [(n, {"n": n}, {"lang": "en"}) for n in (1, 2, 3)])
        page = await subscription.history(limit=9, since=StreamPosition(3, page.epoch))
        self.assertEqual([p.offset for p in page.publications], [4, 5])

    async def test_what_was_missed_is_there_when_the_line_is_back(self):
        channel = fresh_channel()
        line = await self.new_line()
        client, subscription = await self.reader(channel, endpoint=line.endpoint)
        for n in range(5):
            times = len(subscription.events.subscribed)
            line.cut()
            await until(lambda: len(client.events.connecting) == n + 2, "the line to be down")
            await asyncio.gather(*(api("publish", channel=channel, data=n) for _ in range(3)))
            await until(lambda: len(subscription.events.subscribed) > times, "the line to be back")
            await until(lambda: len(subscription.events.publications) == 3 * n + 3, "what was missed")
            self.assertTrue(subscription.events.subscribed[-1].recovered)
        self.assertEqual([p.offset for p in subscription.events.publications], list(range(1, 16)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
