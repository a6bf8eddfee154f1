"""The unmodified Python SDK against a running server: TAUTLINE_URL says where."""

import asyncio
import os
import random
import unittest

from centrifuge import ReplyError, StreamPosition, SubscriptionState

from support import CONFIGURED, ServerTestCase, SubscriptionEvents, api, fresh_channel, until


class Connecting(ServerTestCase):
    async def test_without_a_token(self):
        client = await self.connected()
        [context] = client.events.connected
        self.assertEqual(len(context.client), 36)
        self.assertTrue(context.version)

    async def test_with_a_token(self):
        channel = fresh_channel()
        client = await self.connected_as("Ann", "ann")
        subscription = await self.subscribed(client, channel)
        [info] = (await subscription.presence()).clients.values()
        self.assertEqual(info.user, "ann")
        self.assertEqual(info.conn_info, {"name": "Ann"})

    async def test_an_invalid_token_is_3500_for_good(self):
        client = self.new_client(token="not.a.token")
        await client.connect()
        await until(lambda: client.events.disconnected, "the refusal")
        [context] = client.events.disconnected
        self.assertEqual((context.code, context.reason), (3500, "invalid token"))


class Channels(ServerTestCase):
    async def test_publish_reaches_all_with_its_author(self):
        channel = fresh_channel()
        ann = await self.subscribed(await self.connected_as("Ann", "ann"), channel)
        ben = await self.subscribed(await self.connected_as("Ben", "ben"), channel)
        data = {"text": "zażółć 水 🪢", "list": [1, None, {"deep": [True]}], "big": "x" * 30_000}
        await ben.publish(data)
        for reader in (ann, ben):
            await until(lambda: reader.events.publications, "the publication")
            [publication] = reader.events.publications
            self.assertEqual(publication.data, data)
            self.assertEqual(publication.offset, 1)
            self.assertEqual(publication.info.user, "ben")

    async def test_the_api_reaches_subscribers(self):
        channel = fresh_channel()
        subscription = await self.subscribed(await self.connected(), channel)
        await api("publish", channel=channel, data=None, tags={"lang": "en"})
        await until(lambda: subscription.events.publications, "the publication")
        [publication] = subscription.events.publications
        self.assertIsNone(publication.data)
        self.assertIsNone(publication.info)
        self.assertEqual(publication.tags, {"lang": "en"})

    async def test_presence_and_its_statistics(self):
        channel = fresh_channel()
        subscription = await self.subscribed(await self.connected_as("Ann", "ann"), channel)
        await self.subscribed(await self.connected_as("Ann", "ann"), channel)
        await self.subscribed(await self.connected_as("Ben", "ben"), channel)
        clients = (await subscription.presence()).clients
        self.assertEqual(sorted(c.user for c in clients.values()), ["ann", "ann", "ben"])
        statistics = await subscription.presence_stats()
        self.assertEqual((statistics.num_clients, statistics.num_users), (3, 2))

    async def test_join_and_leave(self):
        channel = fresh_channel()
        subscription = await self.subscribed(await self.connected(), channel)
        other = await self.connected_as("Ben", "ben")
        await self.subscribed(other, channel)
        joined = lambda: [i for i in subscription.events.joins if i.user == "ben"]
        await until(joined, "the join")
        await other.disconnect()
        await until(lambda: subscription.events.leaves, "the leave")
        self.assertEqual(subscription.events.leaves[0].client, joined()[0].client)

    async def test_history_both_ways(self):
        channel = fresh_channel()
        subscription = await self.subscribed(await self.connected(), channel)
        for n in range(1, 8):
            await api("publish", channel=channel, data={"n": n})

        async def page(**parameters):
            result = await subscription.history(**parameters)
            self.assertEqual(result.offset, 7)
            self.epoch = result.epoch
            return [publication.offset for publication in result.publications]

        self.assertEqual(await page(), [])
        self.assertEqual(await page(limit=3), [1, 2, 3])
        self.assertEqual(await page(limit=3, since=StreamPosition(3, self.epoch)), [4, 5, 6])
        self.assertEqual(await page(limit=3, since=StreamPosition(6, self.epoch)), [7])
        self.assertEqual(await page(limit=2, reverse=True), [7, 6])
        since = StreamPosition(6, self.epoch)
        self.assertEqual(await page(limit=9, since=since, reverse=True), [5, 4, 3, 2, 1])

    async def test_unsubscribing_and_subscribing_again(self):
        channel = fresh_channel()
        subscription = await self.subscribed(await self.connected(), channel)
        for n in range(10):
            await subscription.unsubscribe()
            self.assertEqual(subscription.state, SubscriptionState.UNSUBSCRIBED)
            await subscription.subscribe()
            await subscription.ready()
            await subscription.publish(n)
            await until(lambda: len(subscription.events.publications) == n + 1, "publication %d" % n)
        statistics = await subscription.presence_stats()
        self.assertEqual(statistics.num_clients, 1)


class Errors(ServerTestCase):
    async def assert_code(self, code, awaitable):
        with self.assertRaises(ReplyError) as raised:
            await awaitable
        self.assertEqual(raised.exception.code, code)

    async def refusal(self, client, channel):
        subscription = client.new_subscription(channel, events=SubscriptionEvents())
        await subscription.subscribe()
        await until(lambda: subscription.events.unsubscribed, "the refusal of %s" % channel)
        return subscription.events.unsubscribed[0].code

    async def test_codes(self):
        client = await self.connected()
        self.assertEqual(await self.refusal(client, "nope:x"), 102)
        self.assertEqual(await self.refusal(client, "$private"), 103)
        self.assertEqual(await self.refusal(client, "x" * 256), 107)
        await self.assert_code(102, client.publish("nope:x", {}))
        await self.assert_code(108, client.history("typing:x", limit=1))
        await self.assert_code(108, client.rpc("anything", {}))
        since = StreamPosition(1, "anotherone")
        await self.assert_code(112, client.history(fresh_channel(), limit=1, since=since))

    async def test_one_channel_too_many_is_106(self):
        client = await self.configured()
        # ../server.toml allows five.
        for _ in range(5):
            await self.subscribed(client, fresh_channel())
        self.assertEqual(await self.refusal(client, fresh_channel()), 106)


class Reconnecting(ServerTestCase):
    async def test_nothing_is_lost_over_broken_lines(self):
        seed = int(os.environ.get("SEED", random.randrange(2 ** 32)))
        print("SEED=%d repeats the moments at which lines break" % seed)
        chance = random.Random(seed)
        channel, total = fresh_channel(), 1000
        line = await self.new_line()
        client = await self.connected(endpoint=line.endpoint)
        subscription = await self.subscribed(client, channel)
        events = subscription.events
        breaks = sorted(chance.sample(range(total - 50), 20))

        for n in range(total):
            await api("publish", channel=channel, data=n)
            # Recovery bridges 300 publications: never get that far ahead.
            await until(lambda: n - len(events.publications) < 200, "the subscriber to follow")
            if n in breaks:
                await until(lambda: len(events.subscribed) == breaks.index(n) + 1, "the line to be back")
                line.cut()
        await until(lambda: len(events.publications) >= total, "all publications")

        self.assertEqual([p.data for p in events.publications], list(range(total)))
        self.assertEqual([p.offset for p in events.publications], list(range(1, total + 1)))
        again = events.subscribed[1:]
        self.assertEqual(len(again), len(breaks))
        self.assertTrue(all(c.was_recovering and c.recovered for c in again), again)
        self.assertEqual(events.unsubscribed, [])

    async def test_what_was_missed_is_there_when_the_line_is_back(self):
        channel = fresh_channel()
        line = await self.new_line()
        client = await self.connected(endpoint=line.endpoint)
        subscription = await self.subscribed(client, channel)
        for n in range(5):
            times = len(subscription.events.subscribed)
            line.cut()
            await until(lambda: len(client.events.connecting) == n + 2, "the line to be down")
            await asyncio.gather(*(api("publish", channel=channel, data=n) for _ in range(3)))
            await until(lambda: len(subscription.events.subscribed) > times, "the line to be back")
            await until(lambda: len(subscription.events.publications) == 3 * n + 3, "what was missed")
            self.assertTrue(subscription.events.subscribed[-1].recovered)
        offsets = [p.offset for p in subscription.events.publications]
        self.assertEqual(offsets, list(range(1, 16)))

    async def test_more_than_history_holds_is_said_to_be_lost(self):
        channel = fresh_channel()
        client = await self.configured()
        options = {"positioned": True, "recoverable": True}
        subscription = await self.subscribed(client, channel, **options)
        events = subscription.events
        await client.disconnect()
        # ../server.toml keeps 100.
        for n in range(101):
            await api("publish", CONFIGURED, channel=channel, data=n)
        await client.connect()
        await until(lambda: len(events.subscribed) == 2, "the subscription to be back")
        again = events.subscribed[1]
        self.assertEqual((again.was_recovering, again.recovered), (True, False))
        await api("publish", CONFIGURED, channel=channel, data="next")
        await until(lambda: events.publications, "the next publication")
        self.assertEqual([(p.data, p.offset) for p in events.publications], [("next", 102)])


if __name__ == "__main__":
    unittest.main(verbosity=2)
