"""A server with code behind it: calls, and what code decides of connections and publications."""

import asyncio
import unittest

from centrifuge import CentrifugeError, ReplyError

from support import ServerTestCase, SubscriptionEvents, fresh_channel, server, until

HANDLERS = server("TAUTLINE_HANDLERS_URL").replace("http", "ws", 1) + "/connection/websocket"


class Handlers(ServerTestCase):
    async def client(self, **data):
        return await self.connected(endpoint=HANDLERS, data=data)

    async def test_a_call_has_its_result(self):
        client = await self.client(user="ann")
        [context] = client.events.connected
        self.assertEqual(context.data, {"welcome": True})
        value = {"text": "häh? 🦀", "list": [1, [2.5]]}
        self.assertEqual((await client.rpc("echo", value)).data, value)
        self.assertEqual((await client.rpc("whoami", None)).data, "ann")

    async def test_a_call_fails_with_the_error_of_its_handler(self):
        client = await self.client()
        for method, expected in [
            ("error", (1000, "no such thing", False)),
            ("temporary", (1001, "later", True)),
            ("nothing", (104, "method not found", False)),
        ]:
            with self.assertRaises(ReplyError) as raised:
                await client.rpc(method, None)
            error = raised.exception
            self.assertEqual((error.code, error.message, error.temporary), expected)

    async def test_a_slow_call_stops_no_quick_one(self):
        client = await self.client()
        order = []

        async def call(method):
            await client.rpc(method, 1)
            order.append(method)

        await asyncio.gather(call("slow"), call("echo"))
        self.assertEqual(order, ["echo", "slow"])

    async def test_a_client_is_refused(self):
        for data, code in [({"error": 1002}, 1002), ({"disconnect": 4502}, 4502)]:
            client = self.new_client(endpoint=HANDLERS, data=data)
            await client.connect()
            await until(lambda: client.events.disconnected, "the refusal")
            self.assertEqual(client.events.disconnected[0].code, code)

    async def test_a_handler_ends_a_connection_for_good(self):
        client = await self.client()
        with self.assertRaises(CentrifugeError):
            await client.rpc("kick", None)
        await until(lambda: client.events.disconnected, "the end")
        [ended] = client.events.disconnected
        self.assertEqual((ended.code, ended.reason), (4501, "enough"))

    async def test_a_subscription_is_refused_or_has_data_of_its_own(self):
        client = await self.client()
        members = client.new_subscription("members" + fresh_channel(), events=SubscriptionEvents())
        await members.subscribe()
        await until(lambda: members.events.unsubscribed, "the refusal")
        self.assertEqual(members.events.unsubscribed[0].code, 403)
        subscription = await self.subscribed(client, fresh_channel(), data=[7])
        self.assertEqual(subscription.events.subscribed[0].data, [7])

    async def test_a_publication_is_changed_taken_away_or_refused(self):
        client = await self.client(user="ann")
        subscription = await self.subscribed(client, fresh_channel())
        with self.assertRaises(ReplyError) as raised:
            await subscription.publish("forbidden")
        self.assertEqual(raised.exception.code, 103)
        for data in ["nothing", "change", "plain"]:
            await subscription.publish(data)
        events = subscription.events
        await until(lambda: len(events.publications) == 2, "two publications")
        self.assertEqual([publication.data for publication in events.publications], ["changed", "plain"])


if __name__ == "__main__":
    unittest.main()
