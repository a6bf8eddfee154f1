package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import org.junit.jupiter.api.Test;

class ConnectionTest extends SdkTest {
  @Test
  void withoutATokenWhereNoneIsNeeded() {
    var event = connected(DEV, new Options()).connected.await(1, "the connection");
    assertEquals(36, event.getClient().length());
  }

  @Test
  void sendIsForServersWithAHandler() {
    var client = connectedAs("ann");
    client.sdk.send(bytes("{}"), error -> {});
    assertEquals(3508, client.disconnected.await(1, "the end").getCode());
  }

  @Test
  void rpcIsForServersWithAHandler() throws Exception {
    var client = connectedAs("ann");
    assertEquals(
        108,
        SdkTest.<RPCResult>refusal(callback -> client.sdk.rpc("anything", bytes("{}"), callback)));
  }

  @Test
  void oneChannelTooManyIs106() {
    var client = connectedAs("ann");
    // ../server.toml allows five.
    for (int n = 0; n < 5; n++) {
      client.subscribedTo(fresh("java-"));
    }
    var subscription = client.subscription(fresh("java-"), new SubscriptionOptions());
    subscription.sdk.subscribe();
    assertEquals(106, subscription.unsubscribed.await(1, "the refusal").getCode());
  }
}
