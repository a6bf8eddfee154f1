import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Wire, type WireSocket } from '../src/model/wire';

/** A WebSocket that does nothing by itself. */
class Silent {
  static made: Silent[] = [];
  onopen: unknown = null;
  onmessage: ((event: unknown) => void) | null = null;
  onerror: unknown = null;
  onclose: ((event: unknown) => void) | null = null;
  closed = false;
  sent: string[] = [];

  constructor(readonly url: string) {
    Silent.made.push(this);
  }

  send(data: string): void {
    this.sent.push(data);
  }

  close(): void {
    this.closed = true;
  }
}

// Node has it from version 23 on.
class ClosedEvent extends Event {
  readonly code: number;
  constructor(type: string, { code }: { code: number }) {
    super(type);
    this.code = code;
  }
}
Object.assign(globalThis, { CloseEvent: ClosedEvent });

function wire() {
  Silent.made = [];
  return new Wire(Silent as unknown as new (url: string) => WebSocket);
}

/** What happens to a socket, in words. */
function watched(socket: WireSocket): string[] {
  const events: string[] = [];
  socket.onopen = () => events.push('open');
  socket.onmessage = ({ data }) => events.push(`message ${data}`);
  socket.onerror = () => events.push('error');
  socket.onclose = ({ code }) => events.push(`close ${code}`);
  return events;
}

/** Waits until `reached`, for at most five seconds. */
async function until(reached: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 5000; !reached();) {
    assert.ok(Date.now() < deadline, 'not reached within five seconds');
    await new Promise((done) => setTimeout(done, 1));
  }
}

test('a whole line hands everything through', () => {
  const socket = new (wire().Socket)('ws://x/');
  const events = watched(socket);
  const [real] = Silent.made;
  socket.send('out');
  real?.onmessage?.({ data: 'in' });
  socket.close();
  real?.onclose?.({ code: 1000 });
  assert.deepEqual([real?.url, real?.sent, real?.closed], ['ws://x/', ['out'], true]);
  assert.deepEqual(events, ['message in', 'close 1000']);
});

test('a cut ends what is there at once, and nothing comes through any more', () => {
  const line = wire();
  const socket = new line.Socket('ws://x/');
  const events = watched(socket);
  line.sever(60_000);
  assert.deepEqual(events, ['error', 'close 1006']);
  const [real] = Silent.made;
  assert.equal(real?.closed, true);
  real?.onmessage?.({ data: 'late' });
  real?.onclose?.({ code: 1000 });
  socket.send('lost');
  assert.deepEqual([events.length, real?.sent], [2, []]);
  line.splice();
});

test('while it is cut, nobody is dialled', async () => {
  const line = wire();
  line.sever(60_000);
  const events = watched(new line.Socket('ws://x/'));
  await until(() => events.length === 2);
  assert.deepEqual(events, ['error', 'close 1006']);
  assert.equal(Silent.made.length, 0);
  line.splice();
});

test('a cut ends by itself, and says so to the SDK', async () => {
  const line = wire();
  let online = 0;
  line.network.addEventListener('online', () => online++);
  line.sever(5);
  assert.ok(line.cut.value !== null);
  line.sever(60_000);
  await until(() => online === 1);
  assert.equal(line.cut.value, null);
  new line.Socket('ws://x/');
  assert.equal(Silent.made.length, 1);
  line.splice();
  assert.equal(online, 1);
});

test('news of the browser’s network reaches the SDK', () => {
  const window = new EventTarget();
  const line = new Wire(Silent as unknown as new (url: string) => WebSocket, window);
  const heard: string[] = [];
  for (const news of ['online', 'offline'])
    line.network.addEventListener(news, () => heard.push(news));
  window.dispatchEvent(new Event('offline'));
  window.dispatchEvent(new Event('online'));
  assert.deepEqual(heard, ['offline', 'online']);
});
