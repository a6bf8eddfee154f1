package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What a backend does to connections and subscriptions, as the SDK tells of it. */
class ForcedTest extends SdkTest {
  @ParameterizedTest
  @ValueSource(
      ints = {
        3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499
      })
  void aReconnectableCodeMakesTheClientComeBack(int code) throws Exception {
    var user = fresh("user-");
    var client = anybody(user);
    api(
        CONFIGURED,
        "disconnect",
        of(user, "\"disconnect\":{\"code\":" + code + ",\"reason\":\"because\"}"));
    client.connected.await(2, "the connection after it");
    var again = client.connecting.await(2, "the way back");
    assertEquals(code, again.getCode());
    assertEquals("because", again.getReason());
    assertEquals(0, client.disconnected.count());
  }

  @ParameterizedTest
  @ValueSource(
      ints = {3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999})
  void aTerminalCodeIsTheEnd(int code) throws Exception {
    var user = fresh("user-");
    var client = anybody(user);
    api(CONFIGURED, "disconnect", of(user, "\"disconnect\":{\"code\":" + code + "}"));
    assertEquals(code, client.disconnected.await(1, "the end").getCode());
    assertEquals(1, client.connected.count());
    assertEquals(1, client.connecting.count());
  }

  @ParameterizedTest
  @ValueSource(ints = {2000, 2100, 2499})
  void anUnsubscribeBelow2500IsTheEndOfTheSubscription(int code) throws Exception {
    var user = fresh("user-");
    var channel = fresh("kept:");
    var subscription = anybody(user).subscribedTo(channel);
    api(CONFIGURED, "unsubscribe", of(user, unsubscribe(channel, code)));
    assertEquals(code, subscription.unsubscribed.await(1, "the end").getCode());
    assertEquals(1, subscription.subscribing.count());
  }

  @ParameterizedTest
  @ValueSource(ints = {2500, 2501, 2502, 2600, 2999})
  void anUnsubscribeFrom2500OnMakesTheClientSubscribeAgain(int code) throws Exception {
    var user = fresh("user-");
    var channel = fresh("kept:");
    var subscription = anybody(user).subscribedTo(channel);
    api(CONFIGURED, "unsubscribe", of(user, unsubscribe(channel, code)));
    subscription.subscribed.await(2, "the subscription after it");
    assertEquals(code, subscription.subscribing.await(2, "the way back").getCode());
    assertEquals(0, subscription.unsubscribed.count());
    publish(CONFIGURED, channel, "\"after\"");
    subscription.publications.await(1, "the publication after it");
  }

  @Test
  void aSubscriptionOfTheServersComesAndGoes() throws Exception {
    var user = fresh("user-");
    var client = anybody(user);
    var channel = fresh("kept:");
    var first = "{\"channel\":\"" + channel + "\",\"data\":1}";
    var position = api(CONFIGURED, "publish", first);
    publish(CONFIGURED, channel, "2");
    var named = "\"channel\":\"" + channel + "\"";
    var subscribe = named + ",\"data\":{\"welcome\":true},\"recover_since\":" + position;
    api(CONFIGURED, "subscribe", of(user, subscribe));
    var came = client.subscribed.await(1, "the subscription");
    assertEquals(channel, came.getChannel());
    assertEquals("{\"welcome\":true}", text(came.getData()));
    publish(CONFIGURED, channel, "3");
    assertEquals("2", text(client.publications.await(1, "what was missed").getData()));
    assertEquals("3", text(client.publications.await(2, "what came").getData()));
    api(CONFIGURED, "unsubscribe", of(user, named));
    assertEquals(channel, client.unsubscribed.await(1, "the end of it").getChannel());
  }

  /** A connected client of {@code user}, who can always get a new token. */
  private TestClient anybody(String user) {
    var options = with(Token.of(user).sign());
    options.setTokenGetter(
        new ConnectionTokenGetter() {
          @Override
          public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
            callback.Done(null, Token.of(user).sign());
          }
        });
    return connected(CONFIGURED, options);
  }

  /** Parameters of the API that are about {@code user}. */
  private static String of(String user, String parameters) {
    return "{\"user\":\"" + user + "\"," + parameters + "}";
  }

  private static String unsubscribe(String channel, int code) {
    return "\"channel\":\"" + channel + "\",\"unsubscribe\":{\"code\":" + code + "}";
  }
}
