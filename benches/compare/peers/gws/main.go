// Echo and broadcast over lxzan/gws, on one core.
//
// It writes each frame by itself; for the echo it is lent a connection that keeps writes back until the next read, which
// is the most that a user can do for it. Broadcasting goes through its Broadcaster, which encodes and compresses once.
//
//	peer-gws --listen ADDRESS:PORT [--send] [--deflate alone|takeover] [--broadcast]
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"

	"github.com/lxzan/gws"
)

const (
	messageLimit = 64 << 20
	corkLimit    = 64 << 10
	readBuffer   = 16 << 10
)

type arguments struct {
	address   string
	each      bool
	deflate   string
	broadcast bool
}

func main() {
	given, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	runtime.GOMAXPROCS(1)
	if err := serve(given); err != nil {
		fmt.Fprintf(os.Stderr, "cannot serve on %s: %v\n", given.address, err)
		os.Exit(1)
	}
}

func parse(words []string) (arguments, error) {
	var given arguments
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch word {
		case "--listen", "--deflate":
			if len(words) == 0 {
				return given, fmt.Errorf("%s wants a value", word)
			}
			if word == "--listen" {
				given.address = words[0]
			} else {
				given.deflate = words[0]
			}
			words = words[1:]
		case "--send":
			given.each = true
		case "--broadcast":
			given.broadcast = true
		default:
			return given, fmt.Errorf("%q is not known here", word)
		}
	}
	if given.address == "" {
		return given, fmt.Errorf("--listen ADDRESS:PORT is missing")
	}
	return given, nil
}

func serve(given arguments) error {
	option := &gws.ServerOption{
		CheckUtf8Enabled:    true,
		ReadMaxPayloadSize:  messageLimit,
		WriteMaxPayloadSize: messageLimit,
		ReadBufferSize:      readBuffer,
	}
	if given.deflate != "" {
		takeover := given.deflate == "takeover"
		option.PermessageDeflate = gws.PermessageDeflate{
			Enabled:               true,
			Level:                 1,
			Threshold:             64,
			ServerContextTakeover: takeover,
			ClientContextTakeover: takeover,
		}
	}
	var handler gws.Event = echo{}
	if given.broadcast {
		handler = &room{}
	}
	upgrader := gws.NewUpgrader(handler, option)
	listener, err := net.Listen("tcp", given.address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			if !given.each && !given.broadcast {
				connection = &corked{Conn: connection}
			}
			reader := bufio.NewReaderSize(connection, readBuffer)
			request, err := http.ReadRequest(reader)
			if err != nil {
				_ = connection.Close()
				return
			}
			socket, err := upgrader.UpgradeFromConn(connection, reader, request)
			if err == nil {
				socket.ReadLoop()
			}
		}()
	}
}

// echo sends each message back.
type echo struct{ gws.BuiltinEventHandler }

func (echo) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	_ = socket.WriteMessage(message.Opcode, message.Bytes())
}

// room sends each message to all.
type room struct {
	gws.BuiltinEventHandler
	members sync.Map
}

func (all *room) OnOpen(socket *gws.Conn) { all.members.Store(socket, struct{}{}) }

func (all *room) OnClose(socket *gws.Conn, _ error) { all.members.Delete(socket) }

func (all *room) OnMessage(_ *gws.Conn, message *gws.Message) {
	defer message.Close()
	broadcaster := gws.NewBroadcaster(message.Opcode, append([]byte(nil), message.Bytes()...))
	all.members.Range(func(member, _ any) bool {
		_ = broadcaster.Broadcast(member.(*gws.Conn))
		return true
	})
	_ = broadcaster.Close()
}

// corked writes before it waits for input, or when much is waiting.
type corked struct {
	net.Conn
	waiting []byte
}

func (c *corked) Write(bytes []byte) (int, error) {
	c.waiting = append(c.waiting, bytes...)
	if len(c.waiting) > corkLimit {
		return len(bytes), c.drain()
	}
	return len(bytes), nil
}

func (c *corked) Read(bytes []byte) (int, error) {
	if err := c.drain(); err != nil {
		return 0, err
	}
	return c.Conn.Read(bytes)
}

func (c *corked) Close() error {
	_ = c.drain()
	return c.Conn.Close()
}

func (c *corked) drain() error {
	if len(c.waiting) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.waiting)
	c.waiting = c.waiting[:0]
	return err
}
