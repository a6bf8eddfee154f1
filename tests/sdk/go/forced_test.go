package sdk

import (
	"fmt"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

// A connected client of a user of its own, who can always get a new token.
func (d dialer) anybody(t *testing.T) (*client, string) {
	t.Helper()
	user := fresh("user-")
	getToken := func(centrifuge.ConnectionTokenEvent) (string, error) { return token(claims{"sub": user}), nil }
	return d.connected(t, configured, centrifuge.Config{Token: token(claims{"sub": user}), GetToken: getToken}), user
}

func TestEveryReconnectableCodeMakesTheClientComeBack(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		for _, code := range []int{3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499} {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				t.Parallel()
				c, user := connect.anybody(t)
				disconnect := map[string]any{"code": code, "reason": "because"}
				api(t, configured, "disconnect", map[string]any{"user": user, "disconnect": disconnect})
				c.connected.await(t, 2, "the connection after it")
				all := c.connecting.all()
				equal(t, all[len(all)-1].Code, code, "code")
				equal(t, all[len(all)-1].Reason, "because", "reason")
				equal(t, c.disconnected.count(), 0, "ends")
			})
		}
	})
}

func TestEveryTerminalCodeIsTheEnd(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		for _, code := range []int{3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999} {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				t.Parallel()
				c, user := connect.anybody(t)
				disconnect := map[string]any{"code": code}
				api(t, configured, "disconnect", map[string]any{"user": user, "disconnect": disconnect})
				equal(t, c.disconnected.await(t, 1, "the end")[0].Code, code, "code")
				equal(t, c.connected.count(), 1, "connections")
			})
		}
	})
}

func TestUnsubscribesEndASubscriptionOrBeginItAnew(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		for _, code := range []int{2000, 2100, 2499, 2500, 2501, 2502, 2600, 2999} {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				t.Parallel()
				c, user := connect.anybody(t)
				channel := fresh("kept:")
				s := c.subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
				unsubscribe := map[string]any{"code": code}
				api(t, configured, "unsubscribe", map[string]any{"user": user, "channel": channel, "unsubscribe": unsubscribe})
				if code < 2500 {
					equal(t, s.unsubscribed.await(t, 1, "the end")[0].Code, code, "code")
					return
				}
				s.subscribed.await(t, 2, "the subscription after it")
				all := s.subscribing.all()
				equal(t, all[len(all)-1].Code, code, "code")
				equal(t, s.unsubscribed.count(), 0, "ends")
			})
		}
	})
}

func TestASubscriptionOfTheServersComesAndGoes(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c, user := connect.anybody(t)
		var gone events[centrifuge.ServerUnsubscribedEvent]
		c.OnUnsubscribed(gone.add)
		channel := fresh("kept:")
		position := api(t, configured, "publish", map[string]any{"channel": channel, "data": 1})
		publish(t, configured, channel, 2)
		api(t, configured, "subscribe", map[string]any{
			"user": user, "channel": channel, "data": map[string]any{"welcome": true}, "recover_since": position,
		})
		came := c.subscribed.await(t, 1, "the subscription")[0]
		equal(t, []string{came.Channel, string(came.Data)}, []string{channel, `{"welcome":true}`}, "subscription")
		publish(t, configured, channel, 3)
		var data []string
		for _, event := range c.publications.await(t, 2, "what was missed, and what came") {
			data = append(data, string(event.Data))
		}
		equal(t, data, []string{"2", "3"}, "publications")
		api(t, configured, "unsubscribe", map[string]any{"user": user, "channel": channel})
		equal(t, gone.await(t, 1, "the end of it")[0].Channel, channel, "channel")
	})
}
