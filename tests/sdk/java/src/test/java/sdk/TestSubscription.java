package sdk;

import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.SubscribingEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.util.List;

/** A subscription that remembers its events. */
final class TestSubscription extends SubscriptionEventListener {
  final Events<SubscribingEvent> subscribing = new Events<>();
  final Events<SubscribedEvent> subscribed = new Events<>();
  final Events<UnsubscribedEvent> unsubscribed = new Events<>();
  final Events<PublicationEvent> publications = new Events<>();
  final Events<JoinEvent> joins = new Events<>();
  final Events<LeaveEvent> leaves = new Events<>();
  Subscription sdk;

  /** The data of what came, as text. */
  List<String> data() {
    return publications.all().stream().map(event -> SdkTest.text(event.getData())).toList();
  }

  @Override
  public void onSubscribing(Subscription subscription, SubscribingEvent event) {
    subscribing.add(event);
  }

  @Override
  public void onSubscribed(Subscription subscription, SubscribedEvent event) {
    subscribed.add(event);
  }

  @Override
  public void onUnsubscribed(Subscription subscription, UnsubscribedEvent event) {
    unsubscribed.add(event);
  }

  @Override
  public void onPublication(Subscription subscription, PublicationEvent event) {
    publications.add(event);
  }

  @Override
  public void onJoin(Subscription subscription, JoinEvent event) {
    joins.add(event);
  }

  @Override
  public void onLeave(Subscription subscription, LeaveEvent event) {
    leaves.add(event);
  }
}
