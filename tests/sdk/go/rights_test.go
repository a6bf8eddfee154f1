package sdk

import (
	"context"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestCapabilitiesOfATokenOpenChannelsAndNoOthers(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		caps := []claims{{"channels": []string{"rights:team_*"}, "match": "wildcard", "allow": []string{"sub", "pub"}}}
		c := connect.connected(t, configured, centrifuge.Config{Token: token(claims{"sub": "ann", "caps": caps})})
		s := c.subscribedTo(t, fresh("rights:team_"), centrifuge.SubscriptionConfig{})
		_, err := s.Publish(context.Background(), []byte(`"hello"`))
		check(t, err)
		s.publications.await(t, 1, "the publication")
		_, err = s.Presence(context.Background())
		equal(t, code(err), 103, "code of what isn't allowed")
		other := c.subscription(t, fresh("rights:"), centrifuge.SubscriptionConfig{})
		check(t, other.Subscribe())
		equal(t, other.unsubscribed.await(t, 1, "the refusal")[0].Code, 103, "code of another channel")
	})
}

func TestAPatternGivesAChannelItsUser(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		c.subscribedTo(t, "/users/ann/orders", centrifuge.SubscriptionConfig{})
		other := c.subscription(t, "/users/ben/orders", centrifuge.SubscriptionConfig{})
		check(t, other.Subscribe())
		equal(t, other.unsubscribed.await(t, 1, "the refusal")[0].Code, 103, "code")
	})
}

func TestAnImposedFilterIsNarrowedAndNeverWidened(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("owned:")
		reader := func(filter *centrifuge.FilterNode) *subscription {
			return connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{TagsFilter: filter})
		}
		all, narrow, wide := reader(nil), reader(centrifuge.FilterEq("kind", "a")),
			reader(centrifuge.FilterIn("owner", "ann", "ben"))
		for n, tags := range []map[string]string{
			{"owner": "ann", "kind": "a"}, {"owner": "ben", "kind": "a"}, {"owner": "ann", "kind": "b"}, {}, {"owner": "ann", "kind": "a"},
		} {
			api(t, configured, "publish", map[string]any{"channel": channel, "data": n, "tags": tags})
		}
		for _, s := range []*subscription{all, wide} {
			s.publications.await(t, 3, "what is ann's")
			equal(t, s.data(), []string{"0", "2", "4"}, "what came")
		}
		narrow.publications.await(t, 2, "what is narrowed")
		equal(t, narrow.data(), []string{"0", "4"}, "what came through the narrower filter")
	})
}
