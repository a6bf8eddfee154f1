package sdk

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

// A document of half a kibibyte of which little changes, cut at odd places by letters of several bytes.
func document(n int) string {
	return fmt.Sprintf(`{"device":"pompa-%d","state":"%s","rpm":%d,"log":"%s"}`,
		n%3, []string{"działa", "stoi", "水"}[n%3], 1200+n, strings.Repeat("zażółć 🪢 ", 24))
}

func TestPatchesComeTogetherAgainOverBrokenLines(t *testing.T) {
	eachEncoding(t, func(t *testing.T, connect dialer) {
		const total = 40
		channel := fresh("delta:")
		var patches atomic.Int32
		c := connect.connected(t, configured, centrifuge.Config{
			Token:    token(claims{"sub": "ann"}),
			LogLevel: centrifuge.LogLevelTrace,
			LogHandler: func(entry centrifuge.LogEntry) {
				if strings.Contains(strings.ReplaceAll(entry.Fields["push"], " ", ""), `"delta":true`) {
					patches.Add(1)
				}
			},
		})
		s := c.subscribedTo(t, channel, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil})
		plain := connect.connectedAs(t, "ben").subscribedTo(t, channel, centrifuge.SubscriptionConfig{})
		var want []string
		for n := range total {
			if n == total/2 {
				c.line.cut(t)
				c.connecting.await(t, 2, "the line to be down")
			}
			want = append(want, document(n))
			publish(t, configured, channel, json.RawMessage(document(n)))
			if n%10 < 8 {
				// The others are recovered, or come several at a time.
				s.publications.await(t, n+1, "publication")
			}
		}
		s.publications.await(t, total, "all publications")
		plain.publications.await(t, total, "all publications, plain")
		equal(t, s.data(), want, "what came in patches")
		equal(t, plain.data(), want, "what came without")
		// The SDK may leave out log entries when it has many: how many there are exactly is told elsewhere.
		until(t, "patches", func() bool { return patches.Load() > 0 })
	})
}
