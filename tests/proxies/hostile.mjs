// A hostile proxy: everything that networks do to HTTP, one thing at a time or all at once.
//
//   node hostile.mjs http://127.0.0.1:8000 --listen 9000 --strip --buffer
//
// It is TCP that looks at requests. Where it has to do something to them, a connection carries one request
// (`Connection: close`), and the connection's answer is what the server sent, late, in part, or not at all.

import { createServer, connect } from 'node:net';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

/**
 * What can be done to the traffic.
 *
 * - `strip`: leaves out `Upgrade` and `Connection`, as a proxy does that doesn't know WebSockets.
 * - `sockets`: what becomes of upgrades: `'refuse'` resets them, `'hang'` never answers, `'mute'` lets them be
 *   opened and passes nothing on.
 * - `buffer`: passes nothing of an answer on before all of it is there.
 * - `http10`: asks the server in HTTP/1.0.
 * - `connections`: takes so many connections at a time, and resets what comes beyond.
 * - `latency`: milliseconds by which everything is late, in each direction.
 * - `cutAfter`: milliseconds after which a connection is cut, whatever is under way.
 * - `resetAfter`: a connection is reset somewhere between the first KiB of its answer and so many bytes.
 * - `seed`: of the choice of that place.
 */
export async function hostile(target, middle = {}, port = 0) {
  const { hostname, port: farPort } = new URL(target);
  const random = seeded(middle.seed ?? 1);
  const sockets = new Set();
  const self = { url: '', seen: [], cuts: 0, refused: 0 };
  const edits = middle.strip || middle.sockets || middle.buffer || middle.http10;

  const keep = (socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
  };
  let open = 0;

  const listener = createServer((near) => {
    keep(near);
    if (open >= (middle.connections ?? Infinity)) {
      self.refused += 1;
      near.resetAndDestroy();
      return;
    }
    open += 1;
    const far = connect(Number(farPort), hostname);
    keep(far);
    near.on('close', () => {
      open -= 1;
      far.destroy();
    });
    const cut = () => {
      if (near.destroyed) return;
      self.cuts += 1;
      near.resetAndDestroy();
    };
    if (middle.cutAfter) {
      const timer = setTimeout(cut, middle.cutAfter);
      near.on('close', () => clearTimeout(timer));
    }

    let deed = 'pass';
    let head = '';
    near.on('data', (bytes) => {
      if (!edits) note(bytes.toString('latin1'));
      if (!edits || head === null) return later(far, bytes);
      head += bytes.toString('latin1');
      if (!isWhole(head)) return;
      note(head);
      if (middle.sockets && isUpgrade(head)) deed = middle.sockets;
      if (deed === 'refuse') cut();
      else if (deed !== 'hang') later(far, Buffer.from(edited(head), 'latin1'));
      head = null;
    });

    const held = [];
    let answered = 0;
    const limit = middle.resetAfter ? 1024 + Math.floor(random() * (middle.resetAfter - 1024)) : Infinity;
    far.on('data', (bytes) => {
      if (middle.buffer && !isSwitch(held[0] ?? bytes)) {
        held.push(bytes);
        return;
      }
      if (deed === 'mute' && answered > 0) return;
      answered += bytes.length;
      later(near, bytes);
      if (answered > limit) cut();
    });
    far.on('end', () => {
      if (held.length > 0) later(near, Buffer.concat(held));
      later(near, null);
    });
    far.on('close', () => later(near, null));

    function later(socket, bytes) {
      const pass = () => {
        if (socket.destroyed || socket.writableEnded) return;
        if (bytes === null) socket.end();
        else socket.write(bytes);
      };
      // Timers of one length fire in the order in which they were set.
      if (middle.latency) setTimeout(pass, middle.latency);
      else pass();
    }
  });

  function note(head) {
    const first = /^[A-Z]+ ([^ ?]*)[^ ]* HTTP\/1\.[01]\r\n/.exec(head);
    if (first) self.seen.push(first[1]);
  }

  function edited(request) {
    let text = request;
    const upgrades = isUpgrade(request) && !middle.strip && !middle.http10;
    if (!upgrades) {
      text = text.replace(/^(upgrade|connection):.*\r\n/gim, '').replace('\r\n', '\r\nConnection: close\r\n');
    }
    if (middle.http10) text = text.replace(' HTTP/1.1\r\n', ' HTTP/1.0\r\n');
    return text;
  }

  await new Promise((resolve) => listener.listen(port, '127.0.0.1', resolve));
  self.url = `http://127.0.0.1:${listener.address().port}`;
  /** Cuts every connection. */
  self.cut = () => {
    self.cuts += 1;
    for (const socket of sockets) socket.resetAndDestroy();
  };
  self.close = () => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  };
  return self;
}

const isUpgrade = (request) => /^upgrade: *websocket/im.test(request);
/** 101: what follows is no answer but a WebSocket. */
const isSwitch = (answer) => answer.subarray(0, 12).toString('latin1').endsWith(' 101');

/** Whether the head and as much body as it announces are there. */
function isWhole(request) {
  const end = request.indexOf('\r\n\r\n');
  const length = /^content-length: *(\d+)/im.exec(request)?.[1] ?? '0';
  return end >= 0 && request.length >= end + 4 + Number(length);
}

/** A small seeded generator (mulberry32): a failing run can be repeated. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const number = { type: 'string' };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      listen: { type: 'string', default: '9000' },
      strip: { type: 'boolean' },
      buffer: { type: 'boolean' },
      http10: { type: 'boolean' },
      sockets: { type: 'string' },
      connections: number,
      latency: number,
      cutAfter: number,
      resetAfter: number,
      seed: number,
    },
  });
  const { listen, sockets, ...rest } = values;
  const middle = Object.fromEntries(
    Object.entries(rest).map(([name, value]) => [name, typeof value === 'string' ? Number(value) : value]),
  );
  const [target = 'http://127.0.0.1:8000'] = positionals;
  const { url } = await hostile(target, sockets ? { ...middle, sockets } : middle, Number(listen));
  console.log(`${url} -> ${target} ${JSON.stringify({ ...middle, sockets })}`);
}
