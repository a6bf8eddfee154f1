package sdk

import (
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestACacheGivesTheNewestAndNoMore(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("cache:")
		c := connect.connectedAs(t, "ann")
		s := c.subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		publish(t, configured, channel, 1)
		s.publications.await(t, 1, "the publication")
		check(t, c.Disconnect())
		for n := 2; n <= 30; n++ {
			publish(t, configured, channel, n)
		}
		check(t, c.Connect())
		again := s.subscribed.await(t, 2, "the subscription to be back")[1]
		equal(t, []bool{again.WasRecovering, again.Recovered}, []bool{true, true}, "recovering and recovered")
		s.publications.await(t, 2, "the newest")
		publish(t, configured, channel, 31)
		s.publications.await(t, 3, "the next")
		equal(t, s.data(), []string{"1", "30", "31"}, "what came")
	})
}

func TestACacheMayAnswerWithoutBeingAsked(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("autocache:")
		publish(t, configured, channel, 1)
		publish(t, configured, channel, 2)
		s := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		s.publications.await(t, 1, "the newest")
		publish(t, configured, channel, 3)
		s.publications.await(t, 2, "the next")
		equal(t, s.data(), []string{"2", "3"}, "what came")
	})
}
