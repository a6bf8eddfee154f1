"""What a subscription may have besides its channel: patches, filters by tags, the newest publication."""

import json

from centrifuge import DeltaType, Filter

from support import CONFIGURED, ServerTestCase, SubscriptionEvents, api, fresh_channel, until


def document(n):
    """Half a kibibyte of which little changes, cut at odd places by letters of several bytes."""
    state = ["działa", "stoi", "水"][n % 3]
    return {"device": "pompa-%d" % (n % 3), "state": state, "n": n, "log": "zażółć 🪢 " * 24}


class Options(ServerTestCase):
    def value(self, publication):
        """Data as the application wrote it."""
        return publication.data

    async def publish(self, channel, data, **parameters):
        await api("publish", CONFIGURED, channel=channel, data=data, **parameters)

    async def values(self, subscription, count):
        publications = subscription.events.publications
        await until(lambda: len(publications) >= count, "%d publications" % count)
        return [self.value(publication) for publication in publications]

    async def test_patches_come_together_again(self):
        channel = "delta:" + fresh_channel()
        client = await self.configured()
        subscription = await self.subscribed(client, channel, delta=DeltaType.FOSSIL)
        for n in range(10):
            await self.publish(channel, document(n))
            await until(lambda: len(subscription.events.publications) > n, "publication %d" % n)
        await client.disconnect()
        for n in range(10, 14):
            await self.publish(channel, document(n))
        await client.connect()
        values = await self.values(subscription, 14)
        self.assertEqual(values, [document(n) for n in range(14)])
        patches = [publication.delta for publication in subscription.events.publications]
        self.assertEqual(patches[:10], [False] + [True] * 9)

    async def test_a_filter_lets_through_what_it_names(self):
        channel = "filtered:" + fresh_channel()
        wanted = Filter.eq("lang", "pl")
        client = await self.configured()
        subscription = await self.subscribed(client, channel, tags_filter=wanted)
        await self.publish(channel, 1, tags={"lang": "pl"})
        await self.publish(channel, 2, tags={"lang": "en"})
        await client.disconnect()
        await self.publish(channel, 3)
        await self.publish(channel, 4, tags={"lang": "pl"})
        await client.connect()
        self.assertEqual(await self.values(subscription, 2), [1, 4])
        self.assertTrue(subscription.events.subscribed[1].recovered)

    async def test_a_filter_where_none_is_allowed_is_107(self):
        client = await self.configured()
        filtered = Filter.eq("lang", "pl")
        subscription = client.new_subscription(
            "kept:" + fresh_channel(), events=SubscriptionEvents(), tags_filter=filtered)
        await subscription.subscribe()
        await until(lambda: subscription.events.unsubscribed, "the refusal")
        self.assertEqual(subscription.events.unsubscribed[0].code, 107)

    async def test_a_cache_gives_the_newest_of_what_was_missed_and_no_more(self):
        channel = "cache:" + fresh_channel()
        client = await self.configured()
        subscription = await self.subscribed(client, channel)
        await self.publish(channel, 1)
        await self.values(subscription, 1)
        await client.disconnect()
        for n in range(2, 31):
            await self.publish(channel, n)
        await client.connect()
        await self.values(subscription, 2)
        await self.publish(channel, 31)
        self.assertEqual(await self.values(subscription, 3), [1, 30, 31])
        again = subscription.events.subscribed[1]
        self.assertTrue(again.was_recovering and again.recovered)

    async def test_a_cache_gives_the_newest(self):
        channel = "autocache:" + fresh_channel()
        await self.publish(channel, 1)
        await self.publish(channel, 2)
        subscription = await self.subscribed(await self.configured(), channel)
        await self.publish(channel, 3)
        self.assertEqual(await self.values(subscription, 2), [2, 3])


class OptionsInProtobuf(Options):
    OPTIONS = {"use_protobuf": True}

    def value(self, publication):
        return json.loads(publication.data)
