package sdk

import (
	"context"
	"fmt"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

var recoverable = centrifuge.SubscriptionConfig{Positioned: true, Recoverable: true}

func TestWhatWasMissedIsThereWhenTheLineIsBack(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		c := connect.connectedAs(t, "ann")
		s := c.subscribedTo(t, channel, recoverable)
		var want []string
		for round := range 5 {
			c.line.cut(t)
			c.connecting.await(t, round+2, "the line to be down")
			for n := range 3 {
				data := fmt.Sprint(3*round + n)
				publish(t, configured, channel, 3*round+n)
				want = append(want, data)
			}
			s.subscribed.await(t, round+2, "the line to be back")
			s.publications.await(t, len(want), "what was missed")
		}
		equal(t, s.data(), want, "what came")
		for _, again := range s.subscribed.all()[1:] {
			if !again.WasRecovering || !again.Recovered {
				t.Fatalf("not recovered: %+v", again)
			}
		}
		equal(t, s.unsubscribed.count(), 0, "lost subscriptions")
	})
}

func TestMoreThanHistoryHoldsIsSaidToBeLost(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		c := connect.connectedAs(t, "ann")
		s := c.subscribedTo(t, channel, recoverable)
		check(t, c.Disconnect())
		// ../server.toml keeps 100.
		for n := range 101 {
			publish(t, configured, channel, n)
		}
		check(t, c.Connect())
		again := s.subscribed.await(t, 2, "the subscription to be back")[1]
		equal(t, []bool{again.WasRecovering, again.Recovered}, []bool{true, false}, "recovering and recovered")
		equal(t, again.StreamPosition.Offset, 101, "the position it goes on from")
		publish(t, configured, channel, "next")
		s.publications.await(t, 1, "the next publication")
		equal(t, s.data(), []string{`"next"`}, "what came")
	})
}

func TestAStateIsAskedForWhereItCannotBeRecovered(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		c := connect.connectedAs(t, "ann")
		var asked events[string]
		position := func() centrifuge.StreamPosition {
			result := api(t, configured, "history", map[string]any{"channel": channel, "limit": 0})
			offset, _ := result["offset"].(float64)
			return centrifuge.StreamPosition{Offset: uint64(offset), Epoch: result["epoch"].(string)}
		}
		config := recoverable
		config.GetState = func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
			asked.add("asked")
			return position(), nil
		}
		s := c.subscribedTo(t, channel, config)
		equal(t, asked.count(), 1, "times asked at first")
		check(t, c.Disconnect())
		for n := range 101 {
			publish(t, configured, channel, n)
		}
		check(t, c.Connect())
		s.subscribed.await(t, 2, "the subscription to be back")
		equal(t, asked.count(), 2, "times asked")
		publish(t, configured, channel, "next")
		s.publications.await(t, 1, "the next publication")
		equal(t, s.data(), []string{`"next"`}, "what came")
	})
}

func TestPublicationsKeepTheirOrder(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		const total = 500
		channel := fresh("go-")
		author := connect.connectedAs(t, "ann")
		s := author.subscribedTo(t, channel, recoverable)
		reader := connect.connectedAs(t, "ben")
		other := reader.subscribedTo(t, channel, recoverable)
		var want []string
		for n := range total {
			if n%100 == 50 {
				// The cut falls into the stream of publications, at whatever byte it finds.
				reader.line.cut(t)
			}
			_, err := s.Publish(context.Background(), fmt.Append(nil, n))
			check(t, err)
			want = append(want, fmt.Sprint(n))
			// History holds 100: never get that far ahead.
			until(t, "the reader to follow", func() bool { return n-other.publications.count() < 80 })
		}
		other.publications.await(t, total, "all publications")
		s.publications.await(t, total, "all publications")
		equal(t, other.data(), want, "what the reader got")
		equal(t, s.data(), want, "what the author got")
	})
}
