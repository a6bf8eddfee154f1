package sdk

import (
	"context"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestPingsKeepASilentConnectionAlive(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		// The SDK gives up on its own when no ping has come for ping interval and this together; the server, when
		// no pong has. ../server.toml has an interval of 2 s: both would happen before the token is refreshed twice.
		refreshed := events[string]{}
		c := connect.connected(t, configured, centrifuge.Config{
			Token:              token(claims{"sub": "ann", "exp": in(3)}),
			MaxServerPingDelay: deadline,
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
				refreshed.add("")
				return token(claims{"sub": "ann", "exp": in(3)}), nil
			},
		})
		refreshed.await(t, 2, "six seconds of the server's time")
		equal(t, c.connecting.count(), 1, "connection attempts")
		equal(t, c.disconnected.count(), 0, "disconnects")
	})
}

func TestSendIsForServersWithAHandler(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		check(t, c.Send(context.Background(), []byte(`{}`)))
		equal(t, c.disconnected.await(t, 1, "the end")[0].Code, 3508, "code")
	})
}

func TestRPCIsForServersWithAHandler(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		_, err := connect.connectedAs(t, "ann").RPC(context.Background(), "anything", []byte(`{}`))
		equal(t, code(err), 108, "code")
	})
}

func TestOneChannelTooManyIs106(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		// ../server.toml allows five.
		for range 5 {
			c.subscribedTo(t, fresh("go-"), centrifuge.SubscriptionConfig{})
		}
		s := c.subscription(t, fresh("go-"), centrifuge.SubscriptionConfig{})
		check(t, s.Subscribe())
		equal(t, s.unsubscribed.await(t, 1, "the refusal")[0].Code, 106, "code")
	})
}
