// The unmodified Go SDK against running servers: TAUTLINE_URL is a `tautline dev`, TAUTLINE_CONFIGURED_URL one with
// the options of ../server.toml, TAUTLINE_HANDLERS_URL one with handlers in code. `cargo xtask test sdk` starts them.
package sdk

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// Patience with a loaded machine, not an expectation of speed.
const deadline = 15 * time.Second

// What tokens for the configured server are signed with; ../server.toml has the same.
const secret, audience = "the tests sign with this, and with nothing else", "sdk-tests"

var (
	dev        = server("TAUTLINE_URL")
	configured = server("TAUTLINE_CONFIGURED_URL")
	handlers   = server("TAUTLINE_HANDLERS_URL")
)

func server(variable string) string {
	url := strings.TrimRight(os.Getenv(variable), "/")
	if url == "" {
		panic(variable + " is not set: let `cargo xtask test sdk` start the servers, or see ../README.md")
	}
	return url
}

// Runs a test once for each encoding of the protocol, side by side.
func eachEncoding(t *testing.T, test func(t *testing.T, connect dialer)) {
	t.Parallel()
	encodings := []struct {
		name string
		make func(string, centrifuge.Config) *centrifuge.Client
	}{
		{"json", centrifuge.NewJsonClient},
		{"protobuf", centrifuge.NewProtobufClient},
	}
	for _, encoding := range encodings {
		t.Run(encoding.name, func(t *testing.T) {
			t.Parallel()
			test(t, dialer{encoding.make})
		})
	}
}

type dialer struct {
	make func(string, centrifuge.Config) *centrifuge.Client
}

// What has happened so far, in order.
type events[T any] struct {
	sync.Mutex
	seen []T
}

func (e *events[T]) add(event T) {
	e.Lock()
	defer e.Unlock()
	e.seen = append(e.seen, event)
}

func (e *events[T]) all() []T {
	e.Lock()
	defer e.Unlock()
	return append([]T(nil), e.seen...)
}

func (e *events[T]) count() int { return len(e.all()) }

// The first `n` events, once there are as many.
func (e *events[T]) await(t *testing.T, n int, what string) []T {
	t.Helper()
	until(t, what, func() bool { return e.count() >= n })
	return e.all()
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", deadline, what)
		}
	}
}

// A client that remembers its events, and whose line can be cut.
type client struct {
	*centrifuge.Client
	line         *line
	connecting   events[centrifuge.ConnectingEvent]
	connected    events[centrifuge.ConnectedEvent]
	disconnected events[centrifuge.DisconnectedEvent]
	errors       events[error]
	// Of server-side subscriptions.
	subscribed   events[centrifuge.ServerSubscribedEvent]
	publications events[centrifuge.ServerPublicationEvent]
}

func (d dialer) client(t *testing.T, url string, config centrifuge.Config) *client {
	c := &client{line: &line{}}
	config.NetDialContext = c.line.dial
	config.Proxy = func(*http.Request) (*neturl.URL, error) { return nil, nil }
	config.MinReconnectDelay, config.MaxReconnectDelay = 5*time.Millisecond, 100*time.Millisecond
	config.ReadTimeout, config.WriteTimeout, config.HandshakeTimeout = deadline, deadline, deadline
	endpoint := strings.Replace(url, "http", "ws", 1) + "/connection/websocket"
	c.Client = d.make(endpoint, config)
	c.OnConnecting(c.connecting.add)
	c.OnConnected(c.connected.add)
	c.OnDisconnected(c.disconnected.add)
	c.OnError(func(event centrifuge.ErrorEvent) { c.errors.add(event.Error) })
	c.OnSubscribed(c.subscribed.add)
	c.OnPublication(c.publications.add)
	t.Cleanup(c.Close)
	return c
}

func (d dialer) connected(t *testing.T, url string, config centrifuge.Config) *client {
	t.Helper()
	c := d.client(t, url, config)
	check(t, c.Connect())
	c.connected.await(t, 1, "the connection")
	return c
}

// A connected client of the configured server with a token for `user`.
func (d dialer) connectedAs(t *testing.T, user string) *client {
	t.Helper()
	return d.connected(t, configured, centrifuge.Config{Token: token(claims{"sub": user})})
}

// A subscription that remembers its events.
type subscription struct {
	*centrifuge.Subscription
	subscribing  events[centrifuge.SubscribingEvent]
	subscribed   events[centrifuge.SubscribedEvent]
	unsubscribed events[centrifuge.UnsubscribedEvent]
	publications events[centrifuge.PublicationEvent]
	joins        events[centrifuge.JoinEvent]
	leaves       events[centrifuge.LeaveEvent]
	errors       events[error]
}

func (c *client) subscription(t *testing.T, channel string, config centrifuge.SubscriptionConfig) *subscription {
	t.Helper()
	config.MinResubscribeDelay, config.MaxResubscribeDelay = 5*time.Millisecond, 100*time.Millisecond
	sub, err := c.NewSubscription(channel, config)
	check(t, err)
	s := &subscription{Subscription: sub}
	s.OnSubscribing(s.subscribing.add)
	s.OnSubscribed(s.subscribed.add)
	s.OnUnsubscribed(s.unsubscribed.add)
	s.OnPublication(s.publications.add)
	s.OnJoin(s.joins.add)
	s.OnLeave(s.leaves.add)
	s.OnError(func(event centrifuge.SubscriptionErrorEvent) { s.errors.add(event.Error) })
	return s
}

func (c *client) subscribedTo(t *testing.T, channel string, config centrifuge.SubscriptionConfig) *subscription {
	t.Helper()
	s := c.subscription(t, channel, config)
	check(t, s.Subscribe())
	s.subscribed.await(t, 1, "the subscription to "+channel)
	return s
}

// The data of what came, as text.
func (s *subscription) data() []string {
	var data []string
	for _, event := range s.publications.all() {
		data = append(data, string(event.Data))
	}
	return data
}

// A client's TCP connections, of which the newest can be cut.
type line struct {
	sync.Mutex
	live net.Conn
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	l.Lock()
	defer l.Unlock()
	l.live = conn
	return conn, err
}

// Both directions end at once; what was on its way is lost.
func (l *line) cut(t *testing.T) {
	l.Lock()
	defer l.Unlock()
	check(t, l.live.(*net.TCPConn).SetLinger(0))
	check(t, l.live.Close())
}

type claims map[string]any

// A token for the configured server, HS256. With `channel` among the claims it is a subscription token.
func token(c claims) string { return signed(c, secret) }

func signed(c claims, secret string) string {
	if _, ok := c["aud"]; !ok {
		c["aud"] = audience
	}
	part := func(value any) string {
		text, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := part(claims{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any(c))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Unix time so many seconds from now, as claims have it: whole seconds, and never less than asked for.
func in(seconds int64) int64 { return time.Now().Unix() + 1 + seconds }

// A name nobody used before, so that tests cannot meet.
func fresh(prefix string) string { return prefix + rand.Text() }

// Calls a method of the server API that has to succeed.
func api(t *testing.T, url, method string, parameters map[string]any) map[string]any {
	t.Helper()
	body, err := json.Marshal(parameters)
	check(t, err)
	request, err := http.NewRequest(http.MethodPost, url+"/api/"+method, bytes.NewReader(body))
	check(t, err)
	request.Header.Set("X-API-Key", "dev")
	answer, err := plainly.Do(request)
	check(t, err)
	defer answer.Body.Close()
	var decoded struct{ Result map[string]any }
	check(t, json.NewDecoder(answer.Body).Decode(&decoded))
	if decoded.Result == nil {
		t.Fatalf("%s did not succeed: status %d", method, answer.StatusCode)
	}
	return decoded.Result
}

// Whatever proxy the environment names is not meant for loopback.
var plainly = &http.Client{Transport: &http.Transport{}, Timeout: deadline}

func publish(t *testing.T, url, channel string, data any) {
	t.Helper()
	api(t, url, "publish", map[string]any{"channel": channel, "data": data})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got, want any, what string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
