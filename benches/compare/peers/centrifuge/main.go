// The Go library `centrifuge` as its users write a server on it: every client may connect, subscribe and publish.
//
//	centrifuge-peer --listen 127.0.0.1:PORT
//
// Channels of `delta:` keep history and publish differences, those of `filtered:` take filters by tags; all others
// keep nothing. `GET /heap` collects garbage and tells what is still in use, in bytes.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/centrifugal/centrifuge"
)

const maxBody = 1 << 20

func main() {
	listen := flag.String("listen", "", "ADDRESS:PORT")
	flag.Parse()
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		// Anonymous, as in `tautline dev`.
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(event centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{Options: subscribeOptions(event.Channel)}, nil)
		})
		client.OnPublish(func(event centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
			result, err := node.Publish(event.Channel, event.Data, publishOptions(event.Channel, nil)...)
			reply(centrifuge.PublishReply{Result: &result}, err)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	http.HandleFunc("/api/publish", func(w http.ResponseWriter, r *http.Request) { publish(node, w, r) })
	http.HandleFunc("/heap", heap)
	log.Fatal(http.ListenAndServe(*listen, nil))
}

func subscribeOptions(channel string) centrifuge.SubscribeOptions {
	switch {
	case strings.HasPrefix(channel, "delta:"):
		return centrifuge.SubscribeOptions{
			EnablePositioning: true,
			EnableRecovery:    true,
			AllowedDeltaTypes: []centrifuge.DeltaType{centrifuge.DeltaTypeFossil},
		}
	case strings.HasPrefix(channel, "filtered:"):
		return centrifuge.SubscribeOptions{AllowTagsFilter: true}
	default:
		return centrifuge.SubscribeOptions{}
	}
}

func publishOptions(channel string, tags map[string]string) []centrifuge.PublishOption {
	var options []centrifuge.PublishOption
	if strings.HasPrefix(channel, "delta:") {
		options = append(options, centrifuge.WithHistory(1000, 10*time.Minute), centrifuge.WithDelta(true))
	}
	if tags != nil {
		options = append(options, centrifuge.WithTags(tags))
	}
	return options
}

// As much of the server API as the loads use.
func publish(node *centrifuge.Node, w http.ResponseWriter, r *http.Request) {
	var call struct {
		Channel string            `json:"channel"`
		Data    json.RawMessage   `json:"data"`
		Tags    map[string]string `json:"tags"`
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if err == nil {
		_, err = node.Publish(call.Channel, call.Data, publishOptions(call.Channel, call.Tags)...)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprint(w, `{"result":{}}`)
}

// What lives on the heap after a collection, and the stacks of the goroutines: the library has two or more for each
// connection, so they are as much a part of it as what is allocated.
func heap(w http.ResponseWriter, _ *http.Request) {
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Fprintf(w, "%d %d\n", stats.HeapAlloc+stats.StackInuse, stats.HeapObjects)
}
