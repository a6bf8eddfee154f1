package sdk;

import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.DuplicateSubscriptionException;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.MessageEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.ServerSubscribedEvent;
import io.github.centrifugal.centrifuge.ServerUnsubscribedEvent;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import java.net.Proxy;

/** A client that remembers its events. */
final class TestClient extends EventListener implements AutoCloseable {
  final Events<ConnectingEvent> connecting = new Events<>();
  final Events<ConnectedEvent> connected = new Events<>();
  final Events<DisconnectedEvent> disconnected = new Events<>();
  /** Of server-side subscriptions. */
  final Events<ServerSubscribedEvent> subscribed = new Events<>();

  final Events<ServerUnsubscribedEvent> unsubscribed = new Events<>();
  final Events<ServerPublicationEvent> publications = new Events<>();
  /** Of no channel. */
  final Events<MessageEvent> messages = new Events<>();

  final Client sdk;

  TestClient(String server, Options options) {
    // Whatever proxy the environment names is not meant for loopback.
    options.setProxy(Proxy.NO_PROXY);
    options.setMinReconnectDelay(5);
    options.setMaxReconnectDelay(100);
    options.setTimeout(SdkTest.DEADLINE * 1000);
    var endpoint = server.replaceFirst("^http", "ws") + "/connection/websocket?format=protobuf";
    sdk = new Client(endpoint, options, this);
  }

  void connect() {
    sdk.connect();
  }

  TestSubscription subscription(String channel, SubscriptionOptions options) {
    options.setMinResubscribeDelay(5);
    options.setMaxResubscribeDelay(100);
    var subscription = new TestSubscription();
    try {
      subscription.sdk = sdk.newSubscription(channel, options, subscription);
    } catch (DuplicateSubscriptionException error) {
      throw new IllegalStateException(error);
    }
    return subscription;
  }

  TestSubscription subscribedTo(String channel, SubscriptionOptions options) {
    var subscription = subscription(channel, options);
    subscription.sdk.subscribe();
    subscription.subscribed.await(1, "the subscription to " + channel);
    return subscription;
  }

  TestSubscription subscribedTo(String channel) {
    return subscribedTo(channel, new SubscriptionOptions());
  }

  @Override
  public void close() throws InterruptedException {
    sdk.close(1000);
  }

  @Override
  public void onConnecting(Client client, ConnectingEvent event) {
    connecting.add(event);
  }

  @Override
  public void onConnected(Client client, ConnectedEvent event) {
    connected.add(event);
  }

  @Override
  public void onDisconnected(Client client, DisconnectedEvent event) {
    disconnected.add(event);
  }

  @Override
  public void onSubscribed(Client client, ServerSubscribedEvent event) {
    subscribed.add(event);
  }

  @Override
  public void onPublication(Client client, ServerPublicationEvent event) {
    publications.add(event);
  }

  @Override
  public void onUnsubscribed(Client client, ServerUnsubscribedEvent event) {
    unsubscribed.add(event);
  }

  @Override
  public void onMessage(Client client, MessageEvent event) {
    messages.add(event);
  }
}
