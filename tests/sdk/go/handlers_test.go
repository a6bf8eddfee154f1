package sdk

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestACallReachesTheHandler(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, handlers, centrifuge.Config{Data: []byte(`{"user":"ann"}`)})
		result, err := c.RPC(context.Background(), "echo", []byte(`{"list":[1,[2.5]]}`))
		check(t, err)
		equal(t, string(result.Data), `{"list":[1,[2.5]]}`, "what came back")
		result, err = c.RPC(context.Background(), "whoami", nil)
		check(t, err)
		equal(t, string(result.Data), `"ann"`, "who that was")
		_, err = c.RPC(context.Background(), "error", nil)
		equal(t, code(err), 1000, "code of the handler's error")
	})
}

func TestACallFailsWithTheErrorOfItsHandler(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, handlers, centrifuge.Config{})
		for method, expected := range map[string]centrifuge.Error{
			"error":     {Code: 1000, Message: "no such thing"},
			"temporary": {Code: 1001, Message: "later", Temporary: true},
			"nothing":   {Code: 104, Message: "method not found"},
		} {
			_, err := c.RPC(context.Background(), method, []byte(`null`))
			var refusal *centrifuge.Error
			if !errors.As(err, &refusal) {
				t.Fatalf("%s: got %v", method, err)
			}
			equal(t, *refusal, expected, method)
		}
	})
}

func TestWhatIsSentReachesTheHandlerInOrderAndMessagesComeBack(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.client(t, handlers, centrifuge.Config{})
		messages := events[string]{}
		c.OnMessage(func(event centrifuge.MessageEvent) { messages.add(string(event.Data)) })
		check(t, c.Connect())
		c.connected.await(t, 1, "the connection")
		var want []string
		for n := range 20 {
			check(t, c.Send(context.Background(), []byte(fmt.Sprint(n))))
			want = append(want, fmt.Sprint(n))
		}
		equal(t, messages.await(t, 20, "the messages"), want, "messages")
	})
}

func TestAHandlerEndsAConnectionForGood(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, handlers, centrifuge.Config{})
		// It gets no answer: waiting for one isn't what is tested.
		go func() { _, _ = c.RPC(context.Background(), "kick", []byte(`null`)) }()
		ended := c.disconnected.await(t, 1, "the end")[0]
		equal(t, []any{ended.Code, ended.Reason}, []any{4501, "enough"}, "code and reason")
	})
}

func TestAClientIsRefused(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		for data, code := range map[string]int{`{"error":1002}`: 1002, `{"disconnect":4502}`: 4502} {
			c := connect.client(t, handlers, centrifuge.Config{Data: []byte(data)})
			_ = c.Connect()
			equal(t, c.disconnected.await(t, 1, "the refusal")[0].Code, code, "code")
		}
	})
}

func TestASubscriptionIsRefusedOrHasDataOfItsOwn(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, handlers, centrifuge.Config{})
		members := c.subscription(t, fresh("members"), centrifuge.SubscriptionConfig{})
		check(t, members.Subscribe())
		equal(t, members.unsubscribed.await(t, 1, "the refusal")[0].Code, 403, "code")
		s := c.subscribedTo(t, fresh("go-"), centrifuge.SubscriptionConfig{Data: []byte(`[7]`)})
		equal(t, string(s.subscribed.await(t, 1, "the subscription")[0].Data), "[7]", "data")
	})
}

func TestAPublicationIsChangedTakenAwayOrRefused(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		c := connect.connected(t, handlers, centrifuge.Config{Data: []byte(`{"user":"ann"}`)})
		s := c.subscribedTo(t, fresh("go-"), centrifuge.SubscriptionConfig{})
		_, err := s.Publish(context.Background(), []byte(`"forbidden"`))
		equal(t, code(err), 103, "code of what is forbidden")
		for _, data := range []string{`"nothing"`, `"change"`, `"plain"`} {
			_, err := s.Publish(context.Background(), []byte(data))
			check(t, err)
		}
		s.publications.await(t, 2, "two publications")
		equal(t, s.data(), []string{`"changed"`, `"plain"`}, "what came")
	})
}
