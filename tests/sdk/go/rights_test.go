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

func TestASubscriptionTokenSaysWhatMayBeDoneInItsChannel(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("rights:")
		s := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{
			Token: token(claims{"sub": "ann", "channel": channel, "allow": []string{"pub", "hst"}}),
		})
		_, err := s.Publish(context.Background(), []byte(`1`))
		check(t, err)
		page, err := s.History(context.Background(), centrifuge.WithHistoryLimit(5))
		check(t, err)
		equal(t, string(page.Publications[0].Data), "1", "what history has")
		_, err = s.Presence(context.Background())
		equal(t, code(err), 103, "code of what isn't allowed")
	})
}

func TestATokenChangesOptionsOfTheNamespaceForItsSubscriptions(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		ours, theirs := fresh("rights:"), fresh("rights:")
		override := claims{"presence": claims{"value": false}, "force_recovery": claims{"value": true}}
		c := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ann", "subs": claims{ours: claims{"override": override}}}),
		})
		equal(t, c.subscribed.await(t, 1, "the server's subscription")[0].Recoverable, true, "recoverable")
		s := c.subscribedTo(t, theirs, centrifuge.SubscriptionConfig{
			Token: token(claims{"sub": "ann", "channel": theirs, "override": override}),
		})
		equal(t, s.subscribed.await(t, 1, "the subscription")[0].Recoverable, true, "recoverable")
		for _, channel := range []string{ours, theirs} {
			present := api(t, configured, "presence", map[string]any{"channel": channel})["presence"]
			equal(t, present, map[string]any{}, "who is shown")
		}
		c.line.cut(t)
		c.connecting.await(t, 2, "the line to be down")
		publish(t, configured, ours, "missed")
		equal(t, c.subscribed.await(t, 2, "the subscription to be back")[1].Recovered, true, "recovered")
		equal(t, string(c.publications.await(t, 1, "what was missed")[0].Data), `"missed"`, "data")
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
