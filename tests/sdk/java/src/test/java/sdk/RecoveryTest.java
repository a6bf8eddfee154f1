package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class RecoveryTest extends SdkTest {
  @Test
  void whatWasMissedIsThereWhenTheLineIsBack() throws Exception {
    var channel = fresh("java-");
    var line = line(CONFIGURED);
    var client = connectedOver(line, Token.of("ann").sign());
    var subscription = client.subscribedTo(channel, recoverable());
    var want = new ArrayList<String>();
    for (int round = 0; round < 5; round++) {
      line.cut();
      client.connecting.await(round + 2, "the line to be down");
      for (int n = 3 * round; n < 3 * round + 3; n++) {
        publish(CONFIGURED, channel, Integer.toString(n));
        want.add(Integer.toString(n));
      }
      var again = subscription.subscribed.await(round + 2, "the line to be back");
      assertTrue(again.wasRecovering() && again.getRecovered());
      subscription.publications.await(want.size(), "what was missed");
    }
    assertEquals(want, subscription.data());
    assertEquals(0, subscription.unsubscribed.count());
  }

  @Test
  void moreThanHistoryHoldsIsSaidToBeLost() throws Exception {
    var channel = fresh("java-");
    var client = connectedAs("ann");
    var subscription = client.subscribedTo(channel, recoverable());
    client.sdk.disconnect();
    // ../server.toml keeps 100.
    for (int n = 0; n <= 100; n++) {
      publish(CONFIGURED, channel, Integer.toString(n));
    }
    client.connect();
    var again = subscription.subscribed.await(2, "the subscription to be back");
    assertTrue(again.wasRecovering());
    assertFalse(again.getRecovered());
    publish(CONFIGURED, channel, "\"next\"");
    var next = subscription.publications.await(1, "the next publication");
    assertEquals("\"next\"", text(next.getData()));
    assertEquals(102, next.getOffset());
  }

  @Test
  void publicationsKeepTheirOrder() throws Exception {
    final int total = 500;
    var channel = fresh("java-");
    var author = connectedAs("ann").subscribedTo(channel, recoverable());
    var line = line(CONFIGURED);
    var reader =
        connectedOver(line, Token.of("ben").sign()).subscribedTo(channel, recoverable());
    var want = new ArrayList<String>();
    for (int n = 0; n < total; n++) {
      if (n % 100 == 50) {
        // The cut falls into the stream of publications, at whatever byte it finds.
        line.cut();
      }
      var data = Integer.toString(n);
      SdkTest.<PublishResult>answer(callback -> author.sdk.publish(bytes(data), callback));
      want.add(data);
      // History holds 100: never get that far ahead.
      reader.publications.await(Math.max(1, n - 80), "the reader to follow");
    }
    author.publications.await(total, "all publications");
    reader.publications.await(total, "all publications");
    assertEquals(want, author.data());
    assertEquals(want, reader.data());
  }

  @Test
  void aCacheGivesTheNewestAndNoMore() throws Exception {
    var channel = fresh("cache:");
    var client = connectedAs("ann");
    var subscription = client.subscribedTo(channel);
    publish(CONFIGURED, channel, "1");
    subscription.publications.await(1, "the publication");
    client.sdk.disconnect();
    for (int n = 2; n <= 30; n++) {
      publish(CONFIGURED, channel, Integer.toString(n));
    }
    client.connect();
    var again = subscription.subscribed.await(2, "the subscription to be back");
    assertTrue(again.wasRecovering() && again.getRecovered());
    subscription.publications.await(2, "the newest");
    publish(CONFIGURED, channel, "31");
    subscription.publications.await(3, "the next");
    assertEquals(List.of("1", "30", "31"), subscription.data());
  }

  @Test
  void aCacheMayAnswerWithoutBeingAsked() throws Exception {
    var channel = fresh("autocache:");
    publish(CONFIGURED, channel, "1");
    publish(CONFIGURED, channel, "2");
    var subscription = connectedAs("ann").subscribedTo(channel, new SubscriptionOptions());
    subscription.publications.await(1, "the newest");
    publish(CONFIGURED, channel, "3");
    subscription.publications.await(2, "the next");
    assertEquals(List.of("2", "3"), subscription.data());
  }
}
