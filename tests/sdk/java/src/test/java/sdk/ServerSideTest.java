package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ServerSideTest extends SdkTest {
  @Test
  void aTokenSubscribesItsConnection() throws Exception {
    String one = fresh("java-"), other = fresh("closed:");
    var subs = "{\"" + one + "\":{\"data\":{\"welcome\":true}},\"" + other + "\":{}}";
    var client = connected(CONFIGURED, with(Token.of("ann").with("subs", subs).sign()));
    client.subscribed.await(2, "both subscriptions");
    var data = new HashMap<String, String>();
    for (var event : client.subscribed.all()) {
      data.put(event.getChannel(), event.getData() == null ? "" : text(event.getData()));
    }
    assertEquals(Map.of(one, "{\"welcome\":true}", other, ""), data);
    publish(CONFIGURED, one, "\"hello\"");
    var event = client.publications.await(1, "the publication");
    assertEquals(one, event.getChannel());
    assertEquals("\"hello\"", text(event.getData()));
    // The server has it already: nobody can have it twice.
    var subscription = client.subscription(one, new SubscriptionOptions());
    subscription.sdk.subscribe();
    assertEquals(105, subscription.unsubscribed.await(1, "the refusal").getCode());
  }

  @Test
  void whatAServerSideSubscriptionMissedIsThereWhenTheLineIsBack() throws Exception {
    var channel = fresh("kept:");
    var line = line(CONFIGURED);
    var channels = "[\"" + channel + "\"]";
    var client = connectedOver(line, Token.of("ann").with("channels", channels).sign());
    client.subscribed.await(1, "the subscription");
    for (int round = 0; round < 3; round++) {
      line.cut();
      client.connecting.await(round + 2, "the line to be down");
      publish(CONFIGURED, channel, Integer.toString(2 * round));
      publish(CONFIGURED, channel, Integer.toString(2 * round + 1));
      var again = client.subscribed.await(round + 2, "the subscription to be back");
      assertTrue(again.wasRecovering() && again.getRecovered());
      client.publications.await(2 * round + 2, "what was missed");
    }
    var came = client.publications.all().stream().map(event -> text(event.getData())).toList();
    assertEquals(List.of("0", "1", "2", "3", "4", "5"), came);
  }

  @Test
  void whatTheNextTokenDoesNotNameIsGone() throws Exception {
    // The SDK asks for all that it had. What the client may have by itself it would get.
    String stays = fresh("closed:"), goes = fresh("closed:");
    var line = line(CONFIGURED);
    var both = "[\"" + stays + "\",\"" + goes + "\"]";
    var client = connectedOver(line, Token.of("ann").with("channels", both).sign());
    client.subscribed.await(2, "both subscriptions");
    client.sdk.setToken(Token.of("ann").with("channels", "[\"" + stays + "\"]").sign());
    line.cut();
    assertEquals(goes, client.unsubscribed.await(1, "the end of one").getChannel());
  }

  @Test
  void aTokenOfAnUnknownNamespaceIs102() {
    var token = Token.of("ann").with("channels", "[\"nope:x\"]").sign();
    var client = client(CONFIGURED, with(token));
    client.connect();
    assertEquals(102, client.disconnected.await(1, "the refusal").getCode());
  }
}
