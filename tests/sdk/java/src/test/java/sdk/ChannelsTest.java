package sdk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ChannelsTest extends SdkTest {
  @Test
  void publishReachesAllWithItsAuthor() throws Exception {
    var channel = fresh("java-");
    var ann = connectedAs("ann").subscribedTo(channel);
    var ben = connectedAs("ben").subscribedTo(channel);
    var data = "{\"text\":\"zażółć 水 🪢\",\"list\":[1,null,{\"deep\":[true]}]}";
    SdkTest.<PublishResult>answer(callback -> ben.sdk.publish(bytes(data), callback));
    for (var reader : List.of(ann, ben)) {
      var event = reader.publications.await(1, "the publication");
      assertEquals(data, text(event.getData()));
      assertEquals(1, event.getOffset());
      assertEquals("ben", event.getInfo().getUser());
    }
  }

  @Test
  void publicationsBringTheirTags() throws Exception {
    var channel = fresh("java-");
    var reader = connectedAs("ann").subscribedTo(channel);
    publish(CONFIGURED, channel, "1", "{\"symbol\":\"A\",\"price\":\"12.5\"}");
    var event = reader.publications.await(1, "the publication");
    assertEquals(Map.of("symbol", "A", "price", "12.5"), event.getTags());
  }

  @Test
  void anUnknownNamespaceIs102() throws Exception {
    var client = connectedAs("ann");
    var subscription = client.subscription("nope:x", new SubscriptionOptions());
    subscription.sdk.subscribe();
    assertEquals(102, subscription.unsubscribed.await(1, "the refusal").getCode());
    assertEquals(
        102,
        SdkTest.<PublishResult>refusal(
            callback -> client.sdk.publish("nope:x", bytes("{}"), callback)));
  }

  @Test
  void presenceJoinAndLeave() throws Exception {
    var channel = fresh("java-");
    var ann = connectedAs("ann").subscribedTo(channel, joining());
    var named = Token.of("ben").with("info", "{\"name\":\"Ben\"}").sign();
    var ben = connected(CONFIGURED, with(named));
    ben.subscribedTo(channel, joining());
    connectedAs("ben").subscribedTo(channel, joining());

    var clients = answer(ann.sdk::presence).getClients();
    assertEquals(3, clients.size());
    clients.forEach((id, info) -> assertEquals(id, info.getClient()));
    var stats = answer(ann.sdk::presenceStats);
    assertEquals(3, stats.getNumClients());
    assertEquals(2, stats.getNumUsers());

    ben.sdk.disconnect();
    var joined = ann.joins.await(2, "who joined").getInfo();
    assertEquals("ben", joined.getUser());
    assertEquals("{\"name\":\"Ben\"}", text(joined.getConnInfo()));
    assertEquals(
        joined.getClient(), ann.leaves.await(1, "the leave").getInfo().getClient(), "who left");
  }

  @Test
  void historyIsReadInPagesBothWays() throws Exception {
    var channel = fresh("java-");
    var subscription = connectedAs("ann").subscribedTo(channel);
    for (int n = 1; n <= 7; n++) {
      publish(CONFIGURED, channel, Integer.toString(n));
    }
    var epoch = history(subscription, page(0)).getEpoch();
    assertEquals(List.of(), offsets(subscription, page(0)));
    assertEquals(List.of(1L, 2L, 3L), offsets(subscription, page(3)));
    assertEquals(List.of(4L, 5L, 6L), offsets(subscription, since(3, epoch, page(3))));
    assertEquals(List.of(7L), offsets(subscription, since(6, epoch, page(3))));
    assertEquals(List.of(7L, 6L), offsets(subscription, page(2).withReverse(true)));
    assertEquals(
        List.of(5L, 4L, 3L, 2L, 1L),
        offsets(subscription, since(6, epoch, page(9)).withReverse(true)));
    var foreign = since(1, "anotherone", page(1)).build();
    assertEquals(
        112,
        SdkTest.<HistoryResult>refusal(callback -> subscription.sdk.history(foreign, callback)));
  }

  private static SubscriptionOptions joining() {
    var options = new SubscriptionOptions();
    options.setJoinLeave(true);
    return options;
  }

  private static HistoryOptions.Builder page(int limit) {
    return new HistoryOptions.Builder().withLimit(limit);
  }

  private static HistoryOptions.Builder since(
      long offset, String epoch, HistoryOptions.Builder page) {
    return page.withSince(new StreamPosition(offset, epoch));
  }

  private static HistoryResult history(TestSubscription subscription, HistoryOptions.Builder page)
      throws Exception {
    return answer(callback -> subscription.sdk.history(page.build(), callback));
  }

  private static List<Long> offsets(TestSubscription subscription, HistoryOptions.Builder page)
      throws Exception {
    var result = history(subscription, page);
    assertEquals(7, result.getOffset(), "top offset");
    return result.getPublications().stream().map(publication -> publication.getOffset()).toList();
  }
}
