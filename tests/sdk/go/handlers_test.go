package sdk

import (
	"context"
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
