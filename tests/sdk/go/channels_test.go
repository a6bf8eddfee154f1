package sdk

import (
	"context"
	"errors"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestPublishReachesAllWithItsAuthor(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		ann := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		ben := connect.connectedAs(t, "ben").subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		data := `{"text":"zażółć 水 🪢","list":[1,null,{"deep":[true]}]}`
		_, err := ben.Publish(context.Background(), []byte(data))
		check(t, err)
		for _, reader := range []*subscription{ann, ben} {
			event := reader.publications.await(t, 1, "the publication")[0]
			equal(t, string(event.Data), data, "data")
			equal(t, event.Offset, 1, "offset")
			equal(t, event.Info.User, "ben", "author")
		}
	})
}

func TestAnUnknownNamespaceIs102(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connectedAs(t, "ann")
		s := c.subscription(t, "nope:x", centrifuge.SubscriptionConfig{})
		check(t, s.Subscribe())
		equal(t, s.unsubscribed.await(t, 1, "the refusal")[0].Code, 102, "code of subscribe")
		_, err := c.Publish(context.Background(), "nope:x", []byte(`{}`))
		equal(t, code(err), 102, "code of publish")
	})
}

func TestPresenceJoinAndLeave(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		wants := centrifuge.SubscriptionConfig{JoinLeave: true}
		ann := connect.connectedAs(t, "ann").subscribedTo(t, channel, wants)
		ben := connect.connected(t, configured, centrifuge.Config{
			Token: token(claims{"sub": "ben", "info": map[string]string{"name": "Ben"}}),
		})
		ben.subscribedTo(t, channel, wants)
		other := connect.connectedAs(t, "ben")
		other.subscribedTo(t, channel, wants)

		clients, err := ann.Presence(context.Background())
		check(t, err)
		equal(t, len(clients.Clients), 3, "clients in presence")
		for id, info := range clients.Clients {
			equal(t, info.Client, id, "client id")
		}
		stats, err := ann.PresenceStats(context.Background())
		check(t, err)
		equal(t, []int{stats.NumClients, stats.NumUsers}, []int{3, 2}, "clients and users")

		check(t, ben.Disconnect())
		joins := ann.joins.await(t, 3, "three joins")
		leave := ann.leaves.await(t, 1, "the leave")[0]
		equal(t, joins[1].User+" "+string(joins[1].ConnInfo), `ben {"name":"Ben"}`, "who joined")
		equal(t, leave.Client, joins[1].Client, "who left")
	})
}

func TestHistoryIsReadInPagesBothWays(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		channel := fresh("go-")
		s := connect.connectedAs(t, "ann").subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		for n := 1; n <= 7; n++ {
			publish(t, configured, channel, n)
		}
		var epoch string
		page := func(options ...centrifuge.HistoryOption) (offsets []uint64) {
			result, err := s.History(context.Background(), options...)
			check(t, err)
			equal(t, result.Offset, 7, "top offset")
			epoch = result.Epoch
			for _, publication := range result.Publications {
				offsets = append(offsets, publication.Offset)
			}
			return offsets
		}
		since := func(offset uint64) centrifuge.HistoryOption {
			return centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: offset, Epoch: epoch})
		}
		limit, reverse := centrifuge.WithHistoryLimit, centrifuge.WithHistoryReverse(true)
		equal(t, page(), "[]", "no limit")
		equal(t, page(limit(3)), "[1 2 3]", "first page")
		equal(t, page(limit(3), since(3)), "[4 5 6]", "second page")
		equal(t, page(limit(3), since(6)), "[7]", "last page")
		equal(t, page(limit(2), reverse), "[7 6]", "backwards")
		equal(t, page(limit(9), since(6), reverse), "[5 4 3 2 1]", "backwards from 6")
		_, err := s.History(context.Background(), limit(1),
			centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: 1, Epoch: "anotherone"}))
		equal(t, code(err), 112, "code of a foreign epoch")
	})
}

// The code of a server's refusal, 0 if it is none.
func code(err error) uint32 {
	var refusal *centrifuge.Error
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	return 0
}
