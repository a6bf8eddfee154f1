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

    async def test_a_subscription_token_says_what_may_be_done_in_its_channel(self):
        channel = "rights:" + fresh_channel()
        client = await self.configured()
        allowed = token(sub="ann", channel=channel, allow=["pub", "hst"])
        subscription = await self.subscribed(client, channel, token=allowed)
        await subscription.publish(self.pack(1))
        page = await subscription.history(limit=5)
        self.assertEqual([self.value(publication) for publication in page.publications], [1])
        with self.assertRaises(ReplyError) as raised:
            await subscription.presence()
        self.assertEqual(raised.exception.code, 103)

    async def test_a_token_changes_options_of_the_namespace_for_its_subscriptions(self):
        ours, theirs = ("rights:" + fresh_channel() for _ in range(2))
        override = {"presence": {"value": False}, "force_recovery": {"value": True}}
        line = await self.new_line(CONFIGURED)
        client = await self.configured(
            endpoint=line.endpoint, token=token(sub="ann", subs={ours: {"override": override}}))
        events = client.events
        await until(lambda: events.subscribed, "the server's subscription")
        self.assertTrue(events.subscribed[0].recoverable)
        opened = token(sub="ann", channel=theirs, override=override)
        subscription = await self.subscribed(client, theirs, token=opened)
        self.assertTrue(subscription.events.subscribed[0].recoverable)
        for channel in (ours, theirs):
            self.assertEqual((await api("presence", CONFIGURED, channel=channel))["presence"], {})
        line.cut()
        await until(lambda: len(events.connecting) == 2, "the line to be down")
        await api("publish", CONFIGURED, channel=ours, data="missed")
        await until(lambda: events.publications, "what was missed")
        self.assertEqual(self.value(events.publications[0].pub), "missed")
        self.assertTrue(events.subscribed[1].recovered)

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
