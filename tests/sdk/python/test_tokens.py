"""Tokens: what they open, how they end, and how they are renewed in time."""

from centrifuge import SubscriptionState, UnauthorizedError

from support import (
    CONFIGURED, ServerTestCase, SubscriptionEvents, api, fresh_channel, in_seconds, token, until)


class ConnectionTokens(ServerTestCase):
    async def end(self, **options):
        client = self.new_configured_client(**options)
        await client.connect()
        await until(lambda: client.events.disconnected, "the end")
        return client.events.disconnected[0].code

    async def test_refusals(self):
        self.assertEqual(await self.end(), 3501)
        self.assertEqual(await self.end(token=token("another secret", sub="ann")), 3500)
        self.assertEqual(await self.end(token=token(sub="ann", aud="somebody else")), 3500)

    async def test_an_expired_token_is_replaced_once(self):
        asked = []

        async def get_token():
            asked.append(1)
            return token(sub="ann")

        await self.configured(token=token(sub="ann", exp=in_seconds(-10)), get_token=get_token)
        self.assertEqual(len(asked), 1)

    async def test_a_connection_is_refreshed_before_it_expires(self):
        asked = []

        async def get_token():
            asked.append(1)
            return token(sub="ann", exp=in_seconds(2 if len(asked) < 2 else 3600))

        client = await self.configured(token=token(sub="ann", exp=in_seconds(2)), get_token=get_token)
        await until(lambda: len(asked) >= 2, "two refreshes")
        await self.subscribed(client, fresh_channel())
        self.assertEqual(len(client.events.connecting), 1)

    async def test_whoever_gets_no_new_token_is_disconnected(self):
        async def get_token():
            raise UnauthorizedError

        # The SDK's own code for "unauthorized".
        code = await self.end(token=token(sub="ann", exp=in_seconds(2)), get_token=get_token)
        self.assertEqual(code, 1)


class SubscriptionTokens(ServerTestCase):
    def setUp(self):
        self.channel = "closed:" + fresh_channel()

    def options(self, first, then):
        """The options of a subscription which begins with one token and is given others later."""
        self.asked = []

        async def get_token(channel):
            self.asked.append(channel)
            return then()

        return {"token": first, "get_token": get_token}

    def lives(self, seconds):
        return token(sub="ann", channel=self.channel, exp=in_seconds(seconds))

    async def test_one_opens_the_channel_it_names(self):
        client = await self.configured()
        subscription = await self.subscribed(client, self.channel, token=self.lives(600))
        await api("publish", CONFIGURED, channel=self.channel, data="hello")
        await until(lambda: subscription.events.publications, "the publication")

    async def test_none_and_an_invalid_one_are_103(self):
        client = await self.configured()
        for n, options in enumerate(({}, {"token": token("another secret", sub="ann", channel=self.channel)})):
            channel = self.channel + str(n)
            subscription = client.new_subscription(channel, events=SubscriptionEvents(), **options)
            await subscription.subscribe()
            await until(lambda: subscription.events.unsubscribed, "the refusal")
            self.assertEqual(subscription.events.unsubscribed[0].code, 103)
        self.assertEqual(client.events.disconnected, [])

    async def test_one_of_another_user_is_3500(self):
        client = await self.configured()
        options = {"token": token(sub="ben", channel=self.channel)}
        subscription = client.new_subscription(self.channel, events=SubscriptionEvents(), **options)
        await subscription.subscribe()
        await until(lambda: client.events.disconnected, "the end")
        self.assertEqual(client.events.disconnected[0].code, 3500)

    async def test_an_expired_one_is_replaced_once(self):
        options = self.options(self.lives(-10), lambda: self.lives(3600))
        await self.subscribed(await self.configured(), self.channel, **options)
        self.assertEqual(self.asked, [self.channel])

    async def test_a_subscription_is_refreshed_before_it_expires(self):
        options = self.options(self.lives(2), lambda: self.lives(2 if len(self.asked) < 2 else 3600))
        subscription = await self.subscribed(await self.configured(), self.channel, **options)
        await until(lambda: len(self.asked) >= 2, "two refreshes")
        await api("publish", CONFIGURED, channel=self.channel, data="still here")
        await until(lambda: subscription.events.publications, "the publication")
        self.assertEqual(subscription.state, SubscriptionState.SUBSCRIBED)
        self.assertEqual(len(subscription.events.subscribing), 1)


class ConnectionTokensInProtobuf(ConnectionTokens):
    OPTIONS = {"use_protobuf": True}


class SubscriptionTokensInProtobuf(SubscriptionTokens):
    OPTIONS = {"use_protobuf": True}
