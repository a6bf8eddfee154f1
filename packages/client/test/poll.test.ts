// What a line makes of answers, by a server of the test's own.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { TautlineSocket } from '../src/index';

const BINARY = { 'Content-Type': 'application/octet-stream' };
const encode = (text: string) => new TextEncoder().encode(text);

/** Answers polls with these pieces, one poll after the other; then with nothing any more. */
function open(t: TestContext, answers: Uint8Array[][]) {
  const asked: Record<string, unknown>[] = [];
  const fetch = async (_: unknown, { body, signal }: { body: Uint8Array; signal?: AbortSignal }) => {
    // Given up, it fails, as the browser's does.
    const given = new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
    given.catch(() => {});
    const head = JSON.parse(new TextDecoder().decode(body).split('\n')[0]!);
    if (head.open) return new Response('{"session":"a.b","next":0,"idle":20,"stream":true}\n', { headers: BINARY });
    if (head.poll === undefined) return new Response(null, { status: 204 });
    asked.push(head);
    const pieces = answers.shift();
    if (pieces === undefined) return given;
    const ends = answers.length > 0;
    return new Response(
      new ReadableStream({
        pull(controller) {
          const piece = pieces.shift();
          if (piece !== undefined) controller.enqueue(piece);
          else if (ends) controller.close();
          else return given;
        },
      }),
      { headers: BINARY },
    );
  };
  const options = { WebSocket: null, storage: null, fetch: fetch as unknown as typeof globalThis.fetch };
  const socket = new TautlineSocket('ws://host/tunnel/a', [], options);
  t.after(() => socket.close());
  return { socket, asked };
}

/** A message of a tunnel: bytes. */
function message(payload: Uint8Array): Uint8Array {
  const length: number[] = [];
  let left = payload.length;
  for (; left > 0x7f; left >>= 7) length.push((left & 0x7f) | 0x80);
  return new Uint8Array([2, ...length, left, ...payload]);
}

function part(next: number, data: Uint8Array): Uint8Array {
  return new Uint8Array([...encode(`{"next":${next},"size":${data.length}}\n`), ...data]);
}

const cut = (bytes: Uint8Array, length: number) =>
  Array.from({ length: Math.ceil(bytes.length / length) }, (_, n) => bytes.slice(n * length, (n + 1) * length));

test('parts come in whatever pieces', async (t) => {
  const payloads = [[], [1], [2, 10, 2], Array.from({ length: 300 }, (_, n) => n & 0xff)].map((list) => Uint8Array.from(list));
  const parts = [part(0, new Uint8Array()), ...payloads.map((payload, n) => part(n + 1, message(payload)))];
  const whole = Uint8Array.from(parts.flatMap((part) => [...part]));
  for (let length = 1; length <= whole.length; length += 1) {
    const { socket } = open(t, [cut(whole, length)]);
    socket.binaryType = 'arraybuffer';
    const heard: Uint8Array[] = [];
    await new Promise<void>((resolve) => {
      socket.onmessage = ({ data }) => {
        heard.push(new Uint8Array(data));
        if (heard.length === payloads.length) resolve();
      };
    });
    assert.deepEqual(heard, payloads, `in pieces of ${length}`);
  }
});

test('a long message is put together once, in however many pieces it comes', async (t) => {
  const size = 1 << 20;
  const pieces = cut(part(1, message(new Uint8Array(size).fill(7))), 1024);
  const { socket } = open(t, [pieces]);
  let copied = 0;
  const { set } = Uint8Array.prototype;
  t.mock.method(Uint8Array.prototype, 'set', function (this: Uint8Array, from: ArrayLike<number>, at?: number) {
    copied += from.length;
    set.call(this, from, at);
  });
  const data = await new Promise<Blob>((resolve) => (socket.onmessage = (event) => resolve(event.data)));
  assert.equal(data.size, size);
  assert.ok(copied < 2 * size, `${copied} bytes were copied`);
});

test('an answer that makes no sense is thrown away, and asked for again', async (t) => {
  for (const nonsense of ['{"next":1}\n', '{"next":1,"size":-5}\n', '{"next":1,"size":"many"}\n', 'null\n', 'no head\n']) {
    const { socket, asked } = open(t, [[encode(nonsense), encode('and more')], [part(1, message(encode('it')))]]);
    const data = await new Promise<Blob>((resolve) => (socket.onmessage = (event) => resolve(event.data)));
    assert.equal(await data.text(), 'it', nonsense);
    assert.deepEqual(asked.map(({ poll }) => poll).slice(0, 2), [0, 0], nonsense);
  }
});

test('what a door refuses is told on the console, and pages of something in between are not', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  for (const [type, text, told] of [
    ['text/plain; charset=utf-8', 'The token has expired.\n', ['http://host/tunnel/a: The token has expired.']],
    ['text/html', '<h1>Log in</h1>', []],
  ] as const) {
    const fetch = async () => new Response(text, { status: 403, headers: { 'Content-Type': type } });
    const socket = new TautlineSocket('ws://host/tunnel/a', [], { WebSocket: null, storage: null, fetch });
    const { code, wasClean } = await new Promise<CloseEvent>((resolve) => (socket.onclose = resolve));
    assert.deepEqual([code, wasClean], [1006, false]);
    assert.deepEqual(warn.mock.calls.map(({ arguments: [line] }) => line), told);
    warn.mock.resetCalls();
  }
});
