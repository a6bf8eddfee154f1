"""The API as a backend in Python calls it: with the library `cent`, unchanged."""

import unittest
import uuid

from cent import AsyncClient, Client
from cent.dto import (
    BatchRequest, BroadcastRequest, ChannelsRequest, Disconnect, DisconnectRequest, HistoryRemoveRequest,
    HistoryRequest, InfoRequest, PresenceRequest, PresenceStatsRequest, PublishRequest, RefreshRequest,
    StreamPosition, SubscribeRequest, UnsubscribeRequest)
from cent.exceptions import CentApiResponseError, CentUnauthorizedError

from support import (
    API_KEY, CONFIGURED, DEADLINE, ServerTestCase, fresh_channel, token, until)


class CentTest(ServerTestCase):
    async def asyncSetUp(self):
        self.cent = AsyncClient(CONFIGURED + "/api", API_KEY, timeout=DEADLINE)
        self.addAsyncCleanup(self.cent.close)

    def test_the_synchronous_client_works_too(self):
        cent = Client(CONFIGURED + "/api", API_KEY, timeout=DEADLINE)
        self.addCleanup(cent.close)
        cent._session._session.trust_env = False
        result = cent.publish(PublishRequest(channel=fresh_channel(), data={"text": "hi"}))
        self.assertEqual(result.offset, 1)
        with self.assertRaises(CentApiResponseError) as raised:
            cent.publish(PublishRequest(channel="nope:x", data=1))
        self.assertEqual(raised.exception.code, 102)
        wrong = Client(CONFIGURED + "/api", "wrong", timeout=DEADLINE)
        self.addCleanup(wrong.close)
        wrong._session._session.trust_env = False
        with self.assertRaises(CentUnauthorizedError):
            wrong.info(InfoRequest())

    async def test_publications_and_history(self):
        cent, channel = self.cent, "kept:" + fresh_channel()
        first = await cent.publish(PublishRequest(channel=channel, data={"n": 1}, tags={"a": "b"}))
        again = [await cent.publish(PublishRequest(channel=channel, data=2, idempotency_key="k")) for _ in range(2)]
        self.assertEqual([result.offset for result in again], [2, 2])
        result = await cent.broadcast(BroadcastRequest(channels=[channel, "nope:x"], data="all"))
        self.assertEqual(result.responses[0].result.offset, 3)
        self.assertEqual(result.responses[1].error.code, 102)
        history = await cent.history(HistoryRequest(channel=channel, limit=100))
        self.assertEqual([pub.data for pub in history.publications], [{"n": 1}, 2, "all"])
        since = StreamPosition(offset=1, epoch=first.epoch)
        history = await cent.history(HistoryRequest(channel=channel, limit=1, since=since))
        self.assertEqual([pub.offset for pub in history.publications], [2])
        await cent.history_remove(HistoryRemoveRequest(channel=channel))
        history = await cent.history(HistoryRequest(channel=channel, limit=100))
        self.assertEqual((history.publications, history.offset, history.epoch), ([], 3, first.epoch))

    async def test_a_batch(self):
        channel = fresh_channel()
        for parallel in (False, True):
            result = await self.cent.batch(BatchRequest(parallel=parallel, requests=[
                PublishRequest(channel=channel, data=1),
                PresenceStatsRequest(channel=channel),
                # The library can't read a reply that is an error, whoever's.
                ChannelsRequest(pattern="nothing like this"),
            ]))
            published, stats, channels = result.replies
            self.assertGreaterEqual(published.offset, 1)
            self.assertEqual(stats.num_clients, 0)
            self.assertEqual(channels.channels, {})

    async def test_connections_of_a_user(self):
        cent, user, channel = self.cent, str(uuid.uuid4()), fresh_channel()
        client = await self.configured(token=token(sub=user))
        subscription = await self.subscribed(client, channel)
        presence = await cent.presence(PresenceRequest(channel=channel))
        self.assertEqual([info.user for info in presence.presence.values()], [user])
        stats = await cent.presence_stats(PresenceStatsRequest(channel=channel))
        self.assertEqual((stats.num_clients, stats.num_users), (1, 1))
        listed = await cent.channels(ChannelsRequest(pattern=channel))
        self.assertEqual(listed.channels[channel].num_clients, 1)
        await cent.unsubscribe(UnsubscribeRequest(user=user, channel=channel))
        await until(lambda: subscription.events.unsubscribed, "the end of the subscription")
        await cent.subscribe(SubscribeRequest(user=user, channel=channel, data={"a": 1}))
        await until(lambda: client.events.subscribed, "the subscription that the server makes")
        await cent.refresh(RefreshRequest(user=user, expire_at=0))
        await cent.disconnect(DisconnectRequest(user=user, disconnect=Disconnect(code=4501, reason="bye")))
        await until(lambda: client.events.disconnected, "the end of the connection")
        ended = client.events.disconnected[0]
        self.assertEqual((ended.code, ended.reason), (4501, "bye"))
        nodes = (await cent.info(InfoRequest())).nodes
        self.assertEqual(len(nodes), 1)
        self.assertTrue(nodes[0].uid)


if __name__ == "__main__":
    unittest.main()
