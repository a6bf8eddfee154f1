// What somebody does with a WebSocket and sees of it, as lines of text: the same for the browser's own and for whatever has its
// interface. It runs in a page, so it stands alone.

/**
 * `Socket` is the class, `site` the server's origin with a tunnel `echo` to a server that says what it is told, and closes
 * as it is told. `options`: a third argument of the constructor.
 */
export async function use(Socket, site, ...options) {
  const log = [];
  const pending = [];
  const base = `${site.replace('http', 'ws')}/tunnel/echo`;
  const say = (line) => log.push(line.replaceAll(site.replace(/^http:/, ''), '//site'));
  const make = (url, protocols) => new Socket(url, protocols, ...options);

  /** What an exception is, or the value. */
  const attempt = (what, run) => {
    try {
      say(`${what}: ${String(run())}`);
    } catch (error) {
      say(`${what}: ${error instanceof DOMException ? 'DOMException ' : ''}${error.name}`);
    }
  };
  const hex = async (blob) =>
    Array.from(new Uint8Array(await blob.arrayBuffer()).slice(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
  const text = (data) => `text of ${data.length} ${JSON.stringify(data.slice(0, 24))}`;
  /** One line in its place, though blobs are read later. */
  const sayData = (head, data) => {
    const at = log.push('') - 1;
    const told = async () => {
      if (typeof data === 'string') return text(data);
      if (data instanceof Blob) return `Blob of ${data.size} ${data.type} ${await hex(data)}`;
      if (data instanceof ArrayBuffer) return `ArrayBuffer of ${data.byteLength} ${await hex(new Blob([data]))}`;
      return Object.prototype.toString.call(data);
    };
    pending.push(told().then((line) => (log[at] = head + line)));
  };
  const watch = (socket) => {
    for (const type of ['open', 'message', 'error', 'close']) {
      socket.addEventListener(type, (event) => {
        const own = event.target === socket && event.currentTarget === socket;
        const head = `${event.constructor.name} ${event.type} ${own} ${event.bubbles} ${event.cancelable} at ${socket.readyState}`;
        if (type === 'message') {
          const { origin, lastEventId, source, ports } = event;
          sayData(`${head} ${origin.replace(site.replace(/^http:/, ''), '//site')} ${lastEventId} ${source} ${ports.length} `, event.data);
        } else if (type === 'close') {
          // For what is too long, each way has words of its own.
          const why = event.code === 1009 ? event.reason !== '' : JSON.stringify(event.reason);
          say(`${head} ${event.code} ${why} ${event.wasClean}`);
        } else say(head);
      });
    }
    return socket;
  };
  const once = (socket, type) => new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
  const look = (socket) =>
    say(`${socket.readyState} ${socket.bufferedAmount} ${socket.protocol} ${socket.extensions} ${socket.binaryType} ${socket.url}`);
  /** Nothing is on its way to the server any more. */
  const flushed = async (socket) => {
    while (socket.bufferedAmount > 0) await new Promise((resolve) => setTimeout(resolve));
  };
  const opened = async (path = '', protocols) => {
    const socket = watch(make(base + path, protocols));
    const end = once(socket, 'close');
    await Promise.race([once(socket, 'open'), end]);
    return socket;
  };

  say('# the class');
  for (const name of ['CONNECTING', 'OPEN', 'CLOSING', 'CLOSED']) {
    say(`${name} ${Socket[name]} ${Socket.prototype[name]}`);
    attempt('written', () => ((Socket[name] = 7), Socket[name]));
    attempt('written', () => ((Socket.prototype[name] = 7), Socket.prototype[name]));
  }
  attempt('called', () => Socket('ws://host/'));
  attempt('of nothing', () => new Socket());
  const bad = [
    ['http://[/', []], ['ftp://host/', []], ['ws://host/#there', []], ['ws://host/#', []], ['ws://:x/', []], ['ws://ho st/', []],
    ...['', 'a b', 'ä', 'a,b', 'a/b', ['a', 'a'], ['a', 'A'], ['ok', ''], new Set(['a', 'a b']), {}, Symbol('a'), null]
      .filter((protocols) => protocols !== null)
      .map((protocols) => ['ws://host/', protocols]),
  ];
  for (const [url, protocols] of bad) attempt('constructed', () => make(url, protocols).url);
  // Nobody is there: what counts is how they are at first.
  for (const url of [`${site}/nowhere`, '/nowhere?a=b', new URL('nowhere', site), `${base.replace('ws:', 'WS:')}/../x y`]) {
    attempt('constructed', () => {
      const socket = make(url);
      const made = socket.url;
      socket.close();
      return made;
    });
  }

  say('# before it is open');
  {
    const socket = watch(make(base, new Set(['other', 'echo'])));
    attempt('is', () => Object.prototype.toString.call(socket));
    attempt('is', () => socket instanceof EventTarget && socket instanceof Socket);
    attempt('constants', () => [socket.CONNECTING, socket.OPEN, socket.CLOSING, socket.CLOSED]);
    attempt('written', () => ((socket.OPEN = 7), socket.OPEN));
    attempt('written', () => ((socket.readyState = 7), socket.readyState));
    look(socket);
    attempt('send', () => socket.send('early'));
    attempt('send', () => socket.send());
    attempt('send', () => socket.send(Symbol('a')));
    attempt('close', () => socket.close(999));
    look(socket);
    await once(socket, 'open');
    look(socket);

    say('# handlers');
    for (const value of [undefined, null, 5, 'text']) attempt('handler', () => ((socket.onmessage = value), socket.onmessage));
    const order = [];
    socket.onmessage = () => order.push('replaced');
    socket.addEventListener('message', () => order.push('listener'));
    socket.onmessage = function (event) {
      order.push(`handler ${this === socket} ${event.type}`);
    };
    socket.send('to handlers');
    await once(socket, 'message');
    socket.onmessage = null;
    say(order.join());

    say('# what is sent');
    const bytes = (...list) => Uint8Array.from(list);
    const whole = bytes(1, 2, 3, 4, 5, 6, 7, 8);
    const frame = document.body.appendChild(document.createElement('iframe'));
    const foreign = new frame.contentWindow.Uint8Array([9, 8, 7]);
    const sent = [
      'text', '', 'häh? 🦀', '\ud800 half', new String('object'), 42, null, undefined, true, [1, [2, 3]], { toString: () => 'told' },
      new Blob(['blob'], { type: 'text/x' }), new Blob([]), new File(['file'], 'name'), whole.buffer, new ArrayBuffer(0),
      whole.subarray(2, 5), new DataView(whole.buffer, 6), new Float64Array([1.5]), foreign, foreign.buffer,
      new frame.contentWindow.Blob(['foreign']), 'x'.repeat(200_000), new Uint8Array(300_000).fill(7), new Blob(['y'.repeat(100_000)]),
    ];
    for (const type of ['blob', 'arraybuffer', 'nonsense', 'blob']) {
      socket.binaryType = type;
      say(`binaryType ${socket.binaryType}`);
      for (const data of type === 'nonsense' ? sent.slice(11, 13) : sent) {
        socket.send(data);
        await once(socket, 'message');
      }
    }
    attempt('send', () => socket.send());
    attempt('send', () => socket.send(Symbol('a')));
    attempt('send', () => socket.send({ toString: () => { throw new RangeError('no'); } }));
    frame.remove();

    say('# order, and what waits');
    await flushed(socket);
    const echoes = new Promise((resolve) => {
      let count = 0;
      socket.addEventListener('message', () => (count += 1) === 6 && resolve());
    });
    const changed = bytes(1, 1, 1);
    for (const data of ['one', new Blob(['two two']), changed, 'häh', changed.buffer, new Blob(['six'])]) {
      socket.send(data);
      say(`waits ${socket.bufferedAmount}`);
    }
    // What is sent is what it was then.
    changed.fill(9);
    await echoes;
    await flushed(socket);

    say('# how it may be closed');
    const long = 'ä'.repeat(62);
    for (const args of [
      [0], [999], [1001], [1005], [1006], [2999], [5000], [65_536 + 1000], [-1], [NaN], [Infinity], [null], ['1000x'], [999.4],
      [3000, long], [999, long], [Symbol('a')], [1000, Symbol('a')], [1n],
    ]) {
      attempt(`close ${args.map(String).map((text) => text.slice(0, 9))}`, () => socket.close(...args));
    }
    look(socket);
    socket.close(4321, 'enough');
    look(socket);
    socket.send('12345');
    say(`waits ${socket.bufferedAmount}`);
    socket.close(4322, 'again');
    attempt('close', () => socket.close(999));
    await once(socket, 'close');
    look(socket);
    socket.send(new Blob(['123']));
    attempt('send', () => socket.send());
    socket.close();
    socket.binaryType = 'arraybuffer';
    look(socket);
  }

  say('# closed by the page');
  for (const args of [[], [undefined], [1000], [1000.5, 'even'], ['3000', 'text'], [4999, 'ä'.repeat(61)], [3000, undefined], [3000, '\ud800']]) {
    const socket = await opened();
    say(`close ${args.map(String).map((text) => text.slice(0, 9))}`);
    socket.close(...args);
    await once(socket, 'close');
  }

  say('# sent and closed at once');
  {
    const socket = await opened();
    socket.send('last');
    socket.send(new Blob(['very last']));
    socket.close(4000);
    await once(socket, 'close');
    const told = await (await fetch(`${site}/told`)).json();
    say(told.slice(-2).map(({ text, length }) => `${text} ${length}`).join());
  }

  // With no code it is 1000 by a WebSocket and 1005 by a line, as docs/tunnel.md says.
  say('# closed by the server');
  for (const order of [{ code: 1000 }, { code: 1001, reason: 'häh' }, { code: 1011, reason: 'broken' }, { code: 4007, reason: 'enough' }, { code: 3000, reason: 'ä'.repeat(61) }, { cut: true }]) {
    const socket = await opened();
    socket.send(`before ${JSON.stringify(order)}`);
    await once(socket, 'message');
    await flushed(socket);
    socket.send(`!${JSON.stringify(order)}`);
    await once(socket, 'close');
    look(socket);
  }

  say('# too long');
  {
    const socket = await opened();
    await flushed(socket);
    socket.send(new Uint8Array(1_100_000));
    await once(socket, 'close');
    // How much of it had left by then, nobody knows.
    say(socket.readyState === socket.CLOSED ? 'closed' : 'open');
  }

  say('# never open');
  for (const url of [base.replace('/echo', '/none'), `${base}/refused`]) {
    const socket = watch(make(url));
    await once(socket, 'close');
    look(socket);
  }
  {
    const socket = watch(make(base));
    socket.close(3000, 'too early');
    look(socket);
    socket.close();
    await once(socket, 'close');
    look(socket);
  }

  say('# listeners that fail stop nobody');
  {
    const socket = make(base);
    const errors = [];
    addEventListener('error', (event) => (event.preventDefault(), errors.push(event.error?.message)), { once: true });
    socket.onopen = () => {
      throw new Error('by the handler');
    };
    watch(socket);
    await once(socket, 'open');
    say(errors.join());
    socket.close();
    await once(socket, 'close');
  }
  await Promise.all(pending);
  return log;
}

/** The same for a door of the server's own, where what is said is the protocol's: text alone, or bytes alone. */
export async function talk(Socket, site, ...options) {
  const log = [];
  const url = `${site.replace('http', 'ws')}/connection/websocket`;
  const once = (socket, type) => new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
  const ends = (socket) => {
    socket.addEventListener('error', () => log.push('error'));
    socket.addEventListener('close', ({ code, reason, wasClean }) => {
      // For what is too long, each way has words of its own.
      const why = code === 1009 ? reason.includes('65536') : JSON.stringify(reason);
      log.push(`close ${code} ${why} ${wasClean} ${socket.bufferedAmount}`);
    });
    return socket;
  };
  const flushed = async (socket) => {
    while (socket.bufferedAmount > 0) await new Promise((resolve) => setTimeout(resolve));
  };
  for (const protocols of [[], ['centrifuge-json'], ['centrifuge-protobuf'], ['other', 'centrifuge-protobuf']]) {
    const socket = ends(new Socket(url, protocols, ...options));
    await once(socket, 'open');
    log.push(`protocol ${socket.protocol}`);
    const isProtobuf = socket.protocol.endsWith('protobuf');
    socket.binaryType = 'arraybuffer';
    // A call of something that isn't there.
    const calls = isProtobuf
      ? [new Uint8Array([4, 8, 1, 0x22, 0]), new Uint8Array([4, 8, 2, 0x6a, 0])]
      : ['{"id":1,"connect":{}}', '{"id":2,"rpc":{}}'];
    for (const call of calls) {
      socket.send(call);
      const { data } = await once(socket, 'message');
      const told = typeof data === 'string' ? data : Array.from(new Uint8Array(data)).join();
      log.push(call === calls[0] ? typeof data : told);
    }
    await flushed(socket);
    if (protocols.length === 0) socket.close(4001, 'mine');
    else if (protocols.length === 1) socket.send(calls[0]);
    else socket.send(isProtobuf ? new Uint8Array(70_000) : 'x'.repeat(70_000));
    await once(socket, 'close');
  }
  return log;
}
