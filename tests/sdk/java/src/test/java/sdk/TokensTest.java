package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import io.github.centrifugal.centrifuge.UnauthorizedException;
import java.util.List;
import java.util.function.IntFunction;
import org.junit.jupiter.api.Test;

class TokensTest extends SdkTest {
  @Test
  void withoutATokenWhereOneIsNeeded() {
    assertEquals(3501, refused(new Options()));
  }

  @Test
  void aTokenNobodySignedIs3500() {
    var bad =
        List.of(
            "nonsense",
            Token.of("ann").signWith("another secret"),
            Token.of("ann").with("aud", "\"somebody else\"").sign());
    for (var token : bad) {
      assertEquals(3500, refused(with(token)), token);
    }
  }

  @Test
  void anExpiredTokenIsReplaced() {
    var tokens = new Tokens(time -> Token.of("ann").sign());
    var options = with(Token.of("ann").expiresIn(-10).sign());
    options.setTokenGetter(tokens.ofConnection());
    var client = connected(CONFIGURED, options);
    assertEquals(1, tokens.asked.count());
    assertEquals(0, client.disconnected.count());
  }

  @Test
  void aConnectionIsRefreshedBeforeItExpires() {
    var tokens = new Tokens(time -> Token.of("ann").expiresIn(time > 1 ? 3600 : 2).sign());
    var options = with(Token.of("ann").expiresIn(2).sign());
    options.setTokenGetter(tokens.ofConnection());
    var client = connected(CONFIGURED, options);
    tokens.asked.await(2, "two refreshes");
    var subscription = client.subscribedTo(fresh("java-"));
    assertEquals(0, subscription.unsubscribed.count());
    assertEquals(1, client.connecting.count());
  }

  @Test
  void whoHasNoTokenAnyMoreIsDisconnected() {
    var options = with(Token.of("ann").expiresIn(2).sign());
    options.setTokenGetter(new Tokens(time -> null).ofConnection());
    var client = connected(CONFIGURED, options);
    // The SDK's own code for "unauthorized": it gives up by itself.
    assertEquals(1, client.disconnected.await(1, "the end").getCode());
  }

  @Test
  void aSubscriptionTokenOpensItsChannel() throws Exception {
    var client = connectedAs("ann");
    var channel = fresh("closed:");
    var subscription = client.subscribedTo(channel, opened(Token.of("ann").channel(channel)));
    publish(CONFIGURED, channel, "\"hello\"");
    var event = subscription.publications.await(1, "the publication");
    assertEquals("\"hello\"", text(event.getData()));

    var without = client.subscription(fresh("closed:"), new SubscriptionOptions());
    without.sdk.subscribe();
    assertEquals(103, without.unsubscribed.await(1, "the refusal").getCode());
    assertEquals(0, client.disconnected.count());
  }

  @Test
  void aSubscriptionTokenOfAnotherEndsTheConnection() {
    var channel = fresh("closed:");
    for (var foreign :
        List.of(Token.of("ben").channel(channel), Token.of("ann").channel(channel + "x"))) {
      var client = connectedAs("ann");
      client.subscription(channel, opened(foreign)).sdk.subscribe();
      assertEquals(3500, client.disconnected.await(1, "the end").getCode());
    }
  }

  @Test
  void anExpiredSubscriptionTokenIs109() {
    var channel = fresh("closed:");
    var options = opened(Token.of("ann").channel(channel).expiresIn(-10));
    var client = connectedAs("ann");
    var subscription = client.subscription(channel, options);
    subscription.sdk.subscribe();
    // Other SDKs ask for another token then. This one means to, and gives up in the same breath.
    assertEquals(109, subscription.unsubscribed.await(1, "the refusal").getCode());
    assertEquals(0, client.disconnected.count());
  }

  @Test
  void aSubscriptionIsRefreshedBeforeItExpires() throws Exception {
    var channel = fresh("closed:");
    IntFunction<String> next =
        time -> Token.of("ann").channel(channel).expiresIn(time > 1 ? 3600 : 2).sign();
    var tokens = new Tokens(next);
    var options = opened(Token.of("ann").channel(channel).expiresIn(2));
    options.setTokenGetter(tokens.ofSubscription());
    var subscription = connectedAs("ann").subscribedTo(channel, options);
    tokens.asked.await(2, "two refreshes");
    publish(CONFIGURED, channel, "\"still here\"");
    subscription.publications.await(1, "the publication");
    assertEquals(1, subscription.subscribing.count());
  }

  @Test
  void whoGetsNoSubscriptionTokenIsUnsubscribed() {
    var client = connectedAs("ann");
    var options = new SubscriptionOptions();
    options.setTokenGetter(new Tokens(time -> null).ofSubscription());
    var subscription = client.subscription(fresh("closed:"), options);
    subscription.sdk.subscribe();
    assertEquals(1, subscription.unsubscribed.await(1, "the end").getCode());
    assertEquals(0, client.disconnected.count());
  }

  /** The code with which a connection is refused. */
  private int refused(Options options) {
    var client = client(CONFIGURED, options);
    client.connect();
    return client.disconnected.await(1, "the refusal").getCode();
  }

  /** What the SDK is given when it asks for a token for the n-th time; {@code null} for a refusal. */
  private record Tokens(IntFunction<String> next, Events<Integer> asked) {
    Tokens(IntFunction<String> next) {
      this(next, new Events<>());
    }

    private synchronized void give(TokenCallback callback) {
      int time = asked.count() + 1;
      var token = next.apply(time);
      callback.Done(token == null ? new UnauthorizedException() : null, token);
      asked.add(time);
    }

    ConnectionTokenGetter ofConnection() {
      return new ConnectionTokenGetter() {
        @Override
        public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
          give(callback);
        }
      };
    }

    SubscriptionTokenGetter ofSubscription() {
      return new SubscriptionTokenGetter() {
        @Override
        public void getSubscriptionToken(SubscriptionTokenEvent event, TokenCallback callback) {
          give(callback);
        }
      };
    }
  }
}
