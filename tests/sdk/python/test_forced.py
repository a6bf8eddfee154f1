"""What a backend does to connections and subscriptions, as the SDK tells of it."""

import asyncio
import unittest
import uuid

from support import CONFIGURED, ServerTestCase, api, fresh_channel, token, until

COMES_BACK = [3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499]
STAYS_AWAY = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999]


class ForcedTest(ServerTestCase):
    async def client(self):
        """A connected client of a user of its own, who can always get a new token."""
        user = str(uuid.uuid4())

        async def get_token(*_):
            return token(sub=user)

        return user, await self.configured(token=token(sub=user), get_token=get_token)

    async def test_every_reconnectable_code_makes_the_client_come_back(self):
        async def check(code):
            user, client = await self.client()
            disconnect = {"code": code, "reason": "because"}
            await api("disconnect", CONFIGURED, user=user, disconnect=disconnect)
            await until(lambda: len(client.events.connected) == 2, "the connection after %d" % code)
            again = client.events.connecting[-1]
            self.assertEqual((again.code, again.reason), (code, "because"))
            self.assertEqual(client.events.disconnected, [])

        await asyncio.gather(*map(check, COMES_BACK))

    async def test_every_terminal_code_is_the_end(self):
        async def check(code):
            user, client = await self.client()
            await api("disconnect", CONFIGURED, user=user, disconnect={"code": code})
            await until(lambda: client.events.disconnected, "the end by %d" % code)
            self.assertEqual([ended.code for ended in client.events.disconnected], [code])
            self.assertEqual(len(client.events.connected), 1)

        await asyncio.gather(*map(check, STAYS_AWAY))

    async def test_unsubscribes_end_a_subscription_or_begin_it_anew(self):
        async def check(code):
            user, client = await self.client()
            channel = "kept:" + fresh_channel()
            subscription = await self.subscribed(client, channel)
            events = subscription.events
            await api("unsubscribe", CONFIGURED, user=user, channel=channel, unsubscribe={"code": code})
            if code < 2500:
                await until(lambda: events.unsubscribed, "the end by %d" % code)
                self.assertEqual([ended.code for ended in events.unsubscribed], [code])
            else:
                await until(lambda: len(events.subscribed) == 2, "the subscription after %d" % code)
                self.assertEqual(events.subscribing[-1].code, code)
                self.assertEqual(events.unsubscribed, [])

        await asyncio.gather(*map(check, [2000, 2100, 2499, 2500, 2501, 2502, 2600, 2999]))

    async def test_a_subscription_by_the_server_comes_and_goes(self):
        user, client = await self.client()
        channel = fresh_channel()
        await api("subscribe", CONFIGURED, user=user, channel=channel, data={"welcome": True})
        await until(lambda: client.events.subscribed, "the subscription")
        came = client.events.subscribed[0]
        self.assertEqual((came.channel, came.data), (channel, {"welcome": True}))
        await api("publish", CONFIGURED, channel=channel, data="hello")
        await until(lambda: client.events.publications, "the publication")
        await api("unsubscribe", CONFIGURED, user=user, channel=channel)
        await until(lambda: client.events.unsubscribed, "the end of it")
        self.assertEqual(client.events.unsubscribed[0].channel, channel)


if __name__ == "__main__":
    unittest.main()
