package sdk

import (
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestWithoutATokenWhereOneIsNeeded(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.client(t, configured, centrifuge.Config{})
		_ = c.Connect()
		event := c.disconnected.await(t, 1, "the refusal")[0]
		equal(t, event.Code, 3501, "code")
	})
}

func TestWithoutATokenWhereNoneIsNeeded(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		event := connect.connected(t, dev, centrifuge.Config{}).connected.all()[0]
		equal(t, len(event.ClientID), 36, "length of the client id")
		if event.Version == "" {
			t.Fatal("the server has no version")
		}
	})
}

func TestATokenNobodySignedIs3500(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		for _, bad := range []string{
			"nonsense",
			signed(claims{"sub": "ann"}, "another secret"),
			token(claims{"sub": "ann", "aud": "somebody else"}),
		} {
			c := connect.client(t, configured, centrifuge.Config{Token: bad})
			_ = c.Connect()
			event := c.disconnected.await(t, 1, "the refusal")[0]
			equal(t, event.Code, 3500, "code of "+bad)
		}
	})
}

func TestAnExpiredTokenIsReplaced(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		var asked atomic.Int32
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "exp": in(-10)}),
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
				asked.Add(1)
				return token(claims{"sub": "ann"}), nil
			},
		})
		equal(t, asked.Load(), 1, "times asked")
		equal(t, c.disconnected.count(), 0, "disconnects")
	})
}

func TestAConnectionIsRefreshedBeforeItExpires(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		var asked atomic.Int32
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "exp": in(2)}),
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
				lives := int64(2)
				if asked.Add(1) > 1 {
					lives = 3600
				}
				return token(claims{"sub": "ann", "exp": in(lives)}), nil
			},
		})
		until(t, "two refreshes", func() bool { return asked.Load() >= 2 })
		// Beyond the end of the second token, and of the time that the server gives after it.
		s := c.subscribedTo(t, fresh("go-"), centrifuge.SubscriptionConfig{})
		equal(t, s.unsubscribed.count(), 0, "lost subscriptions")
		equal(t, c.connecting.count(), 1, "connection attempts")
	})
}

func TestWhoHasNoTokenAnyMoreIsDisconnected(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "exp": in(2)}),
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
				return "", centrifuge.ErrUnauthorized
			},
		})
		event := c.disconnected.await(t, 1, "the end")[0]
		// The SDK's own code for "unauthorized": it gives up by itself.
		equal(t, event.Code, 1, "code")
	})
}

func TestASubscriptionTokenOpensItsChannel(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		channel := fresh("closed:")
		s := c.subscribedTo(t, channel, centrifuge.SubscriptionConfig{
			Token: token(claims{"sub": "ann", "channel": channel}),
		})
		publish(t, configured, channel, "hello")
		equal(t, string(s.publications.await(t, 1, "the publication")[0].Data), `"hello"`, "data")
		equal(t, c.disconnected.count(), 0, "disconnects")

		without := c.subscription(t, fresh("closed:"), centrifuge.SubscriptionConfig{})
		check(t, without.Subscribe())
		equal(t, without.unsubscribed.await(t, 1, "the refusal")[0].Code, 103, "code without a token")
	})
}

func TestASubscriptionTokenOfAnotherEndsTheConnection(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("closed:")
		for _, foreign := range []claims{
			{"sub": "ben", "channel": channel},
			{"sub": "ann", "channel": channel + "x"},
		} {
			c := connect.connectedAs(t, "ann")
			s := c.subscription(t, channel, centrifuge.SubscriptionConfig{Token: token(foreign)})
			check(t, s.Subscribe())
			equal(t, c.disconnected.await(t, 1, "the end")[0].Code, 3500, "code")
		}
	})
}

func TestAnExpiredSubscriptionTokenIsReplaced(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("closed:")
		var asked atomic.Int32
		s := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{
			Token: token(claims{"sub": "ann", "channel": channel, "exp": in(-10)}),
			GetToken: func(centrifuge.SubscriptionTokenEvent) (string, error) {
				asked.Add(1)
				return token(claims{"sub": "ann", "channel": channel}), nil
			},
		})
		equal(t, asked.Load(), 1, "times asked")
		equal(t, s.unsubscribed.count(), 0, "lost subscriptions")
	})
}

func TestASubscriptionIsRefreshedBeforeItExpires(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("closed:")
		var asked atomic.Int32
		lives := func(seconds int64) string {
			return token(claims{"sub": "ann", "channel": channel, "exp": in(seconds)})
		}
		s := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{
			Token: lives(2),
			GetToken: func(centrifuge.SubscriptionTokenEvent) (string, error) {
				if asked.Add(1) > 1 {
					return lives(3600), nil
				}
				return lives(2), nil
			},
		})
		until(t, "two refreshes", func() bool { return asked.Load() >= 2 })
		publish(t, configured, channel, "still here")
		s.publications.await(t, 1, "the publication")
		equal(t, s.subscribing.count(), 1, "times subscribed")
	})
}

func TestWhoGetsNoSubscriptionTokenIsUnsubscribed(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		s := c.subscription(t, fresh("closed:"), centrifuge.SubscriptionConfig{
			GetToken: func(centrifuge.SubscriptionTokenEvent) (string, error) {
				return "", centrifuge.ErrUnauthorized
			},
		})
		check(t, s.Subscribe())
		equal(t, s.unsubscribed.await(t, 1, "the end")[0].Code, 1, "code")
		equal(t, c.disconnected.count(), 0, "disconnects")
	})
}
