"""What tokens, patterns and the server's own filters let a subscriber do and see."""

import json

from centrifuge import Filter, ReplyError

from support import CONFIGURED, ServerTestCase, SubscriptionEvents, api, fresh_channel, token, until


class Rights(ServerTestCase):
    def value(self, publication):
        return publication.data

    def pack(self, value):
        return value

    async def refusal(self, client, channel):
        subscription = client.new_subscription(channel, events=SubscriptionEvents())
        await subscription.subscribe()
        await until(lambda: subscription.events.unsubscribed, "the refusal")
        return subscription.events.unsubscribed[0].code

    async def test_capabilities_open_channels_and_no_others(self):
        caps = [{"channels": ["rights:team_*"], "match": "wildcard", "allow": ["sub", "pub"]}]
        client = await self.configured(token=token(sub="ann", caps=caps))
        subscription = await self.subscribed(client, "rights:team_" + fresh_channel())
        await subscription.publish(self.pack("hello"))
        await until(lambda: subscription.events.publications, "the publication")
        with self.assertRaises(ReplyError) as raised:
            await subscription.presence()
        self.assertEqual(raised.exception.code, 103)
        self.assertEqual(await self.refusal(client, "rights:" + fresh_channel()), 103)

    async def test_a_pattern_gives_a_channel_its_user(self):
        client = await self.configured()
        await self.subscribed(client, "/users/ann/orders")
        self.assertEqual(await self.refusal(client, "/users/ben/orders"), 103)

    async def test_an_imposed_filter_is_narrowed_and_never_widened(self):
        channel = "owned:" + fresh_channel()
        readers = []
        for options in ({}, {"tags_filter": Filter.eq("kind", "a")}, {"tags_filter": Filter.is_in("owner", ["ann", "ben"])}):
            readers.append(await self.subscribed(await self.configured(), channel, **options))
        for data, owner, kind in [(1, "ann", "a"), (2, "ben", "a"), (3, "ann", "b"), (4, "ann", "a")]:
            await api("publish", CONFIGURED, channel=channel, data=data, tags={"owner": owner, "kind": kind})

        def seen():
            return [[self.value(publication) for publication in reader.events.publications] for reader in readers]

        expected = [[1, 3, 4], [1, 4], [1, 3, 4]]
        await until(lambda: sum(map(len, seen())) >= sum(map(len, expected)), "what is theirs")
        self.assertEqual(seen(), expected)


class RightsInProtobuf(Rights):
    OPTIONS = {"use_protobuf": True}

    def value(self, publication):
        return json.loads(publication.data)

    def pack(self, value):
        return json.dumps(value).encode()
