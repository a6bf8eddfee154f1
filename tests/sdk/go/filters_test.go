package sdk

import (
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestAFilterLetsThroughWhatItNames(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("filtered:")
		c := connect.connectedAs(t, "ann")
		filter := centrifuge.FilterAnd(
			centrifuge.FilterIn("symbol", "A", "B"),
			centrifuge.FilterNot(centrifuge.FilterLt("price", "10")),
		)
		s := c.subscribedTo(t, channel, centrifuge.SubscriptionConfig{TagsFilter: filter})
		tagged := func(data int, symbol, price string) {
			tags := map[string]string{"symbol": symbol, "price": price}
			api(t, configured, "publish", map[string]any{"channel": channel, "data": data, "tags": tags})
		}
		tagged(1, "A", "12.5")
		tagged(2, "C", "12.5")
		tagged(3, "B", "9")
		tagged(4, "B", "10")
		s.publications.await(t, 2, "what passes")
		equal(t, s.data(), []string{"1", "4"}, "what came")

		// What is left out counts for the position: nothing is missing, and nothing comes twice.
		check(t, c.Disconnect())
		tagged(5, "C", "11")
		tagged(6, "A", "11")
		tagged(7, "C", "11")
		check(t, c.Connect())
		again := s.subscribed.await(t, 2, "the subscription to be back")[1]
		equal(t, []bool{again.WasRecovering, again.Recovered}, []bool{true, true}, "recovering and recovered")
		tagged(8, "A", "11")
		s.publications.await(t, 4, "what passes afterwards")
		equal(t, s.data(), []string{"1", "4", "6", "8"}, "what came in all")
	})
}

func TestAFilterWhereNoneIsAllowedIs107(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		s := connect.connectedAs(t, "ann").subscription(t, fresh("kept:"),
			centrifuge.SubscriptionConfig{TagsFilter: centrifuge.FilterExists("a")})
		check(t, s.Subscribe())
		equal(t, s.unsubscribed.await(t, 1, "the refusal")[0].Code, 107, "code")
	})
}
