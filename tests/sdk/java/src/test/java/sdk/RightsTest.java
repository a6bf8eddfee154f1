package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What tokens, patterns and the server's own filters let a subscriber do and see. */
class RightsTest extends SdkTest {
  private static final String OVERRIDE =
      "{\"presence\":{\"value\":false},\"force_recovery\":{\"value\":true}}";

  @Test
  void capabilitiesOfATokenOpenChannelsAndNoOthers() throws Exception {
    var caps =
        "[{\"channels\":[\"rights:team_*\"],\"match\":\"wildcard\",\"allow\":[\"sub\",\"pub\"]}]";
    var client = connected(CONFIGURED, with(Token.of("ann").with("caps", caps).sign()));
    var subscription = client.subscribedTo(fresh("rights:team_"));
    SdkTest.<PublishResult>answer(
        callback -> subscription.sdk.publish(bytes("\"hello\""), callback));
    subscription.publications.await(1, "the publication");
    assertEquals(103, refusal(subscription.sdk::presence));
    assertEquals(103, refusalOf(client, fresh("rights:")));
  }

  @Test
  void aSubscriptionTokenSaysWhatMayBeDoneInItsChannel() throws Exception {
    var channel = fresh("rights:");
    var token = Token.of("ann").channel(channel).with("allow", "[\"pub\",\"hst\"]");
    var subscription = connectedAs("ann").subscribedTo(channel, opened(token));
    SdkTest.<PublishResult>answer(callback -> subscription.sdk.publish(bytes("1"), callback));
    var page = new HistoryOptions.Builder().withLimit(5).build();
    var history =
        SdkTest.<HistoryResult>answer(callback -> subscription.sdk.history(page, callback));
    assertEquals("1", text(history.getPublications().get(0).getData()));
    assertEquals(103, refusal(subscription.sdk::presence));
  }

  @Test
  void aTokenChangesOptionsOfTheNamespaceForItsSubscriptions() throws Exception {
    String ours = fresh("rights:"), theirs = fresh("rights:");
    var subs = "{\"" + ours + "\":{\"override\":" + OVERRIDE + "}}";
    var line = line(CONFIGURED);
    var client = connectedOver(line, Token.of("ann").with("subs", subs).sign());
    assertTrue(client.subscribed.await(1, "the server's subscription").getRecoverable());
    var token = Token.of("ann").channel(theirs).with("override", OVERRIDE);
    var subscription = client.subscribedTo(theirs, opened(token));
    assertTrue(subscription.subscribed.await(1, "the subscription").getRecoverable());
    for (var channel : List.of(ours, theirs)) {
      var present = api(CONFIGURED, "presence", "{\"channel\":\"" + channel + "\"}");
      assertEquals("{\"presence\":{}}", present, "nobody is shown");
    }
    line.cut();
    client.connecting.await(2, "the line to be down");
    publish(CONFIGURED, ours, "\"missed\"");
    assertTrue(client.subscribed.await(2, "the subscription to be back").getRecovered());
    var missed = client.publications.await(1, "what was missed");
    assertEquals("\"missed\"", text(missed.getData()));
  }

  @Test
  void aPatternGivesAChannelItsUser() {
    var client = connectedAs("ann");
    client.subscribedTo("/users/ann/orders");
    assertEquals(103, refusalOf(client, "/users/ben/orders"));
  }

  @Test
  void anImposedFilterShowsEachSubscriberWhatIsHis() throws Exception {
    var channel = fresh("owned:");
    var line = line(CONFIGURED);
    var client = connectedOver(line, Token.of("ann").sign());
    var ann = client.subscribedTo(channel);
    var ben = connectedAs("ben").subscribedTo(channel);
    for (int n = 1; n <= 5; n++) {
      publish(CONFIGURED, channel, Integer.toString(n), owner(n % 2 == 1 ? "ann" : "ben"));
    }
    publish(CONFIGURED, channel, "6", "{}");
    line.cut();
    client.connecting.await(2, "the line to be down");
    publish(CONFIGURED, channel, "7", owner("ben"));
    publish(CONFIGURED, channel, "8", owner("ann"));
    assertTrue(ann.subscribed.await(2, "the subscription to be back").getRecovered());
    publish(CONFIGURED, channel, "9", owner("ann"));
    ann.publications.await(5, "what is ann's");
    ben.publications.await(3, "what is ben's");
    assertEquals(List.of("1", "3", "5", "8", "9"), ann.data());
    assertEquals(List.of("2", "4", "7"), ben.data());
  }

  /** The code with which a subscription is refused. */
  private static int refusalOf(TestClient client, String channel) {
    var subscription = client.subscription(channel, new SubscriptionOptions());
    subscription.sdk.subscribe();
    return subscription.unsubscribed.await(1, "the refusal").getCode();
  }

  private static String owner(String user) {
    return "{\"owner\":\"" + user + "\"}";
  }
}
