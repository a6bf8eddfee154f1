// uWebSockets, as Bun ships it, driven from JavaScript: echo; broadcast on `/fanout`, over uWebSockets' own topics; and
// on `/connection/websocket` the four commands of the client protocol that the fan-out load uses, over topics too.
//
//   bun server.js --listen 127.0.0.1:PORT [--deflate alone|takeover]

const words = process.argv.slice(2);
const option = (name) => (words.includes(name) ? words[words.indexOf(name) + 1] : undefined);
const address = option("--listen");
const deflate = option("--deflate");
if (!/^[^:]+:\d+$/.test(address ?? "")) {
  console.error("usage: bun server.js --listen ADDRESS:PORT [--deflate alone|takeover]");
  process.exit(2);
}
const [hostname, port] = address.split(":");
const compress = deflate !== undefined;
const FANOUT = "all";

function answer(socket, command) {
  if (command.connect) return { id: command.id, connect: { client: "bench", version: "bun" } };
  if (command.subscribe) {
    socket.subscribe(command.subscribe.channel);
    return { id: command.id, subscribe: {} };
  }
  if (command.publish) {
    const { channel, data } = command.publish;
    server.publish(channel, JSON.stringify({ push: { channel, pub: { data } } }));
    return { id: command.id, publish: {} };
  }
  return { id: command.id, error: { code: 108, message: "not available" } };
}

const server = Bun.serve({
  hostname,
  port: Number(port),
  fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (server.upgrade(request, { data: { pathname } })) return;
    return new Response("this is a WebSocket server\n", { status: 426 });
  },
  websocket: {
    perMessageDeflate: compress && { compress: deflate === "alone" ? "shared" : "dedicated", decompress: deflate === "alone" ? "shared" : "dedicated" },
    idleTimeout: 0,
    sendPings: false,
    maxPayloadLength: 64 * 1024 * 1024,
    backpressureLimit: 64 * 1024 * 1024,
    open(socket) {
      if (socket.data.pathname === "/fanout") socket.subscribe(FANOUT);
    },
    message(socket, message) {
      switch (socket.data.pathname) {
        case "/fanout":
          server.publish(FANOUT, message, compress);
          return;
        case "/connection/websocket":
          socket.send(message.split("\n").map((line) => JSON.stringify(answer(socket, JSON.parse(line)))).join("\n"));
          return;
        default:
          socket.send(message, compress);
      }
    },
  },
});
