package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** A server with code behind it: calls, messages, and what code decides. */
class HandlersTest extends SdkTest {
  @Test
  void aCallHasItsResult() throws Exception {
    var client = introduced("{\"user\":\"ann\"}");
    var welcome = client.connected.await(1, "the connection").getData();
    assertEquals("{\"welcome\":true}", text(welcome));
    var value = "{\"text\":\"häh? 🦀\",\"list\":[1,[2.5]]}";
    assertEquals(value, call(client, "echo", value));
    assertEquals("\"ann\"", call(client, "whoami", "null"));
  }

  @Test
  void aCallFailsWithTheErrorOfItsHandler() throws Exception {
    var client = introduced("{}");
    var expected =
        Map.of(
            "error", List.<Object>of(1000, "no such thing", false),
            "temporary", List.<Object>of(1001, "later", true),
            "nothing", List.<Object>of(104, "method not found", false));
    for (var entry : expected.entrySet()) {
      var error =
          SdkTest.<RPCResult>refused(
              callback -> client.sdk.rpc(entry.getKey(), bytes("null"), callback));
      assertEquals(
          entry.getValue(), List.of(error.getCode(), error.getMessage(), error.isTemporary()));
    }
  }

  @Test
  void aSlowCallStopsNoQuickOne() throws Exception {
    var client = introduced("{}");
    var order = new Events<String>();
    for (var method : List.of("slow", "echo")) {
      client.sdk.rpc(method, bytes("1"), (error, result) -> order.add(method));
    }
    order.await(2, "both answers");
    assertEquals(List.of("echo", "slow"), order.all());
  }

  @Test
  void whatIsSentReachesTheHandlerInOrderAndMessagesComeBack() throws Exception {
    var client = introduced("{}");
    var want = new ArrayList<String>();
    for (int n = 0; n < 20; n++) {
      var sent = new CompletableFuture<Throwable>();
      client.sdk.send(bytes(Integer.toString(n)), sent::complete);
      assertEquals(null, sent.get(DEADLINE, TimeUnit.SECONDS));
      want.add(Integer.toString(n));
    }
    client.messages.await(20, "the messages");
    assertEquals(
        want, client.messages.all().stream().map(event -> text(event.getData())).toList());
  }

  @Test
  void aHandlerEndsAConnectionForGood() {
    var client = introduced("{}");
    client.sdk.rpc("kick", bytes("null"), (error, result) -> {});
    var ended = client.disconnected.await(1, "the end");
    assertEquals(4501, ended.getCode());
    assertEquals("enough", ended.getReason());
  }

  @Test
  void aClientIsRefusedByAnErrorAndByADisconnect() {
    for (var entry : Map.of("{\"error\":1002}", 1002, "{\"disconnect\":4502}", 4502).entrySet()) {
      var client = client(HANDLERS, saying(entry.getKey()));
      client.connect();
      assertEquals(entry.getValue(), client.disconnected.await(1, "the refusal").getCode());
    }
  }

  @Test
  void aSubscriptionIsRefusedOrHasDataOfItsOwn() {
    var client = introduced("{}");
    var members = client.subscription(fresh("members"), new SubscriptionOptions());
    members.sdk.subscribe();
    assertEquals(403, members.unsubscribed.await(1, "the refusal").getCode());
    var options = new SubscriptionOptions();
    options.setData(bytes("[7]"));
    var open = client.subscribedTo(fresh("java-"), options);
    assertEquals("[7]", text(open.subscribed.await(1, "the subscription").getData()));
  }

  @Test
  void aPublicationIsChangedTakenAwayOrRefused() throws Exception {
    var subscription = introduced("{\"user\":\"ann\"}").subscribedTo(fresh("java-"));
    assertEquals(
        103,
        SdkTest.<PublishResult>refusal(
            callback -> subscription.sdk.publish(bytes("\"forbidden\""), callback)));
    for (var data : List.of("\"nothing\"", "\"change\"", "\"plain\"")) {
      SdkTest.<PublishResult>answer(callback -> subscription.sdk.publish(bytes(data), callback));
    }
    subscription.publications.await(2, "two publications");
    assertEquals(List.of("\"changed\"", "\"plain\""), subscription.data());
  }

  /** A connected client that said so of itself. */
  private TestClient introduced(String data) {
    return connected(HANDLERS, saying(data));
  }

  private static Options saying(String data) {
    var options = new Options();
    options.setData(bytes(data));
    return options;
  }

  private static String call(TestClient client, String method, String data) throws Exception {
    return text(
        SdkTest.<RPCResult>answer(callback -> client.sdk.rpc(method, bytes(data), callback))
            .getData());
  }
}
