// uWebSockets, as Bun ships it: echo on `/echo`, and on `/connection/websocket` the four commands of the client
// protocol that the fan-out load uses, over uWebSockets' own topics.
//
//   bun server.js --listen 127.0.0.1:PORT

const [flag, address] = process.argv.slice(2);
if (flag !== "--listen" || !/^[^:]+:\d+$/.test(address ?? "")) {
  console.error("usage: bun server.js --listen ADDRESS:PORT");
  process.exit(2);
}
const [hostname, port] = address.split(":");

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
    const echo = new URL(request.url).pathname === "/echo";
    if (server.upgrade(request, { data: { echo } })) return;
    return new Response("this is a WebSocket server\n", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0,
    sendPings: false,
    maxPayloadLength: 64 * 1024 * 1024,
    backpressureLimit: 64 * 1024 * 1024,
    message(socket, message) {
      if (socket.data.echo) {
        socket.send(message);
        return;
      }
      const replies = message.split("\n").map((line) => JSON.stringify(answer(socket, JSON.parse(line))));
      socket.send(replies.join("\n"));
    },
  },
});
