"""Subscriptions that the server makes: named by a token, recovered, gone with the next token."""

import json

from support import CONFIGURED, ServerTestCase, SubscriptionEvents, api, fresh_channel, token, until


class ServerSide(ServerTestCase):
    def value(self, data):
        return data

    async def test_a_token_subscribes_its_connection(self):
        one, other = fresh_channel(), "closed:" + fresh_channel()
        subs = {one: {"data": {"welcome": True}}, other: {}}
        client = await self.configured(token=token(sub="ann", subs=subs))
        events = client.events
        await until(lambda: len(events.subscribed) == 2, "both subscriptions")
        told = {context.channel: context.data and self.value(context.data) for context in events.subscribed}
        self.assertEqual(told[one], {"welcome": True})
        self.assertFalse(told[other])
        await api("publish", CONFIGURED, channel=one, data="hello")
        await until(lambda: events.publications, "the publication")
        [context] = events.publications
        self.assertEqual((context.channel, self.value(context.pub.data)), (one, "hello"))
        # The server has it already: nobody can have it twice.
        subscription = client.new_subscription(one, events=SubscriptionEvents())
        await subscription.subscribe()
        await until(lambda: subscription.events.unsubscribed, "the refusal")
        self.assertEqual(subscription.events.unsubscribed[0].code, 105)

    async def test_what_it_missed_is_there_when_the_line_is_back(self):
        channel = "kept:" + fresh_channel()
        line = await self.new_line(CONFIGURED)
        named = token(sub="ann", channels=[channel])
        client = await self.configured(endpoint=line.endpoint, token=named)
        events = client.events
        await until(lambda: events.subscribed, "the subscription")
        for n in range(3):
            line.cut()
            await until(lambda: len(events.connecting) == n + 2, "the line to be down")
            for data in (2 * n, 2 * n + 1):
                await api("publish", CONFIGURED, channel=channel, data=data)
            await until(lambda: len(events.subscribed) == n + 2, "the subscription to be back")
            again = events.subscribed[-1]
            self.assertTrue(again.was_recovering and again.recovered)
            await until(lambda: len(events.publications) == 2 * n + 2, "what was missed")
        seen = [self.value(context.pub.data) for context in events.publications]
        self.assertEqual(seen, list(range(6)))

    async def test_one_by_the_api_begins_where_it_is_told_to_and_is_recovered(self):
        user, channel = fresh_channel(), "kept:" + fresh_channel()
        position = await api("publish", CONFIGURED, channel=channel, data=0)
        await api("publish", CONFIGURED, channel=channel, data=1)
        line = await self.new_line(CONFIGURED)
        client = await self.configured(endpoint=line.endpoint, token=token(sub=user))
        events = client.events
        await api("subscribe", CONFIGURED, user=user, channel=channel, recover_since=position)
        await until(lambda: len(events.publications) == 1, "what was before it")
        line.cut()
        await until(lambda: len(events.connecting) == 2, "the line to be down")
        await api("publish", CONFIGURED, channel=channel, data=2)
        await until(lambda: len(events.publications) == 2, "what was missed")
        self.assertEqual([self.value(context.pub.data) for context in events.publications], [1, 2])
        self.assertTrue(events.subscribed[1].recovered)

    async def test_it_is_gone_when_the_next_token_has_it_no_more(self):
        stays, goes = fresh_channel(), fresh_channel()
        line = await self.new_line(CONFIGURED)
        both = token(sub="ann", channels=[stays, goes])
        client = await self.configured(endpoint=line.endpoint, token=both)
        events = client.events
        await until(lambda: len(events.subscribed) == 2, "both subscriptions")
        client.set_token(token(sub="ann", channels=[stays]))
        line.cut()
        await until(lambda: events.unsubscribed, "the end of one")
        self.assertEqual([context.channel for context in events.unsubscribed], [goes])

    async def test_one_of_an_unknown_namespace_is_102(self):
        client = self.new_configured_client(token=token(sub="ann", channels=["nope:x"]))
        await client.connect()
        await until(lambda: client.events.disconnected, "the refusal")
        self.assertEqual(client.events.disconnected[0].code, 102)


class ServerSideInProtobuf(ServerSide):
    OPTIONS = {"use_protobuf": True}

    def value(self, data):
        return json.loads(data)
