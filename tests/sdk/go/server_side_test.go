package sdk

import (
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestATokenSubscribesItsConnection(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		one, other := fresh("go-"), fresh("closed:")
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "subs": claims{
				one:   claims{"data": claims{"welcome": true}},
				other: claims{},
			}}),
		})
		data := map[string]string{}
		for _, event := range c.subscribed.await(t, 2, "both subscriptions") {
			data[event.Channel] = string(event.Data)
		}
		equal(t, data, map[string]string{one: `{"welcome":true}`, other: ""}, "data of the subscriptions")
		publish(t, configured, one, "hello")
		event := c.publications.await(t, 1, "the publication")[0]
		equal(t, []string{event.Channel, string(event.Data)}, []string{one, `"hello"`}, "publication")
		// The server has it already: nobody can have it twice.
		s := c.subscription(t, one, centrifuge.SubscriptionConfig{})
		check(t, s.Subscribe())
		equal(t, s.unsubscribed.await(t, 1, "the refusal")[0].Code, 105, "code")
	})
}

func TestWhatAServerSideSubscriptionMissedIsThereWhenTheLineIsBack(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("kept:")
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "channels": []string{channel}}),
		})
		c.subscribed.await(t, 1, "the subscription")
		for round := range 3 {
			c.line.cut(t)
			c.connecting.await(t, round+2, "the line to be down")
			publish(t, configured, channel, 2*round)
			publish(t, configured, channel, 2*round+1)
			again := c.subscribed.await(t, round+2, "the subscription to be back")[round+1]
			equal(t, []bool{again.WasRecovering, again.Recovered}, []bool{true, true}, "recovering and recovered")
			c.publications.await(t, 2*round+2, "what was missed")
		}
		var came []string
		for _, event := range c.publications.all() {
			came = append(came, string(event.Data))
		}
		equal(t, came, []string{"0", "1", "2", "3", "4", "5"}, "what came")
	})
}

func TestWhatTheNextTokenDoesNotNameIsGone(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		stays, goes := fresh("go-"), fresh("go-")
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "channels": []string{stays, goes}}),
		})
		gone := events[string]{}
		c.OnUnsubscribed(func(event centrifuge.ServerUnsubscribedEvent) { gone.add(event.Channel) })
		c.subscribed.await(t, 2, "both subscriptions")
		c.SetToken(token(claims{"sub": "ann", "channels": []string{stays}}))
		c.line.cut(t)
		equal(t, gone.await(t, 1, "the end of one"), []string{goes}, "what is gone")
	})
}

func TestATokenOfAnUnknownNamespaceIs102(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.client(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "channels": []string{"nope:x"}}),
		})
		_ = c.Connect()
		equal(t, c.disconnected.await(t, 1, "the refusal")[0].Code, 102, "code")
	})
}
