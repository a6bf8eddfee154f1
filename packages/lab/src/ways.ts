// The five ways, each as ten lines of a page would do it, with their bytes counted.

import { answerHead, chunk, frame, type Tally } from './stats';

export type Message = { run: string; n: number; t: number };

/** What a way needs of the run. */
export type Run = {
  channel: string;
  /** Milliseconds between two polls. */
  poll: number;
  signal: AbortSignal;
  /** Bytes of a request's head for this path, as the server counts it. */
  requestHead(path: string): number;
  heard(data: unknown): void;
  ready(): void;
};

export type Way = {
  id: string;
  title: string;
  how: string;
  /** Follows the channel until the signal; rejects if it can't. */
  follow(run: Run, tally: Tally): Promise<void>;
};

export const WAYS: Way[] = [
  {
    id: 'polling',
    title: 'Polling',
    how: 'asks again and again',
    follow: (run, tally) => poll(run, tally, false),
  },
  {
    id: 'long-polling',
    title: 'Long-polling',
    how: 'asks, and is answered when there is something',
    follow: (run, tally) => poll(run, tally, true),
  },
  { id: 'streaming', title: 'Streaming', how: 'one answer that goes on', follow: stream },
  { id: 'sse', title: 'SSE', how: 'the same, by the browser’s EventSource', follow: events },
  { id: 'websocket', title: 'WebSocket', how: 'a line in both directions', follow: socket },
];

type Page = { publications: { data: unknown }[]; next: string; more: boolean };

async function poll(run: Run, tally: Tally, holds: boolean): Promise<void> {
  let since = '';
  for (let first = true; !run.signal.aborted; first = false) {
    let path = `/history?channel=${run.channel}`;
    if (since !== '') path += `&since=${since}`;
    if (holds && !first) path += '&wait=25';
    tally.requests += 1;
    tally.sent += run.requestHead(path);
    const began = performance.now();
    // What a cache answered would be no measurement.
    const response = await fetch(path, { signal: run.signal, cache: 'no-store' });
    const body = await response.text();
    tally.received += answerHead(response) + new TextEncoder().encode(body).length;
    if (!response.ok) throw new Error(`${response.status}: ${body.trim()}`);
    const page = JSON.parse(body) as Page;
    for (const { data } of page.publications) run.heard(data);
    since = page.next;
    run.ready();
    if (!holds && !page.more) await pause(began + run.poll - performance.now(), run.signal);
  }
}

async function stream(run: Run, tally: Tally): Promise<void> {
  const path = `/lines?channel=${run.channel}`;
  tally.requests += 1;
  tally.sent += run.requestHead(path);
  const response = await fetch(path, { signal: run.signal, cache: 'no-store' });
  tally.received += answerHead(response);
  if (!response.ok || response.body === null) throw new Error(`${response.status}: ${await response.text()}`);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error('the stream ended');
    tally.received += chunk(value.length);
    const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      run.ready();
      if (line !== '') run.heard((JSON.parse(line) as { data?: unknown }).data);
    }
  }
}

async function events(run: Run, tally: Tally): Promise<void> {
  const path = `/events?channel=${run.channel}`;
  tally.requests += 1;
  tally.sent += run.requestHead(path);
  // An EventSource shows nothing of its answer: the head is taken from the same request made by hand.
  tally.received += await headOf(path, run.signal);
  const source = new EventSource(path);
  await new Promise<void>((_, reject) => {
    source.onopen = () => run.ready();
    source.onmessage = ({ data, lastEventId }) => {
      tally.received += chunk(`id: ${lastEventId}\ndata: ${data}\n\n`.length);
      run.heard(JSON.parse(data as string));
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) reject(new Error('the server refused'));
      // The browser asks again by itself.
      else tally.requests += 1;
    };
    run.signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
  }).finally(() => source.close());
}

async function socket(run: Run, tally: Tally): Promise<void> {
  const path = `/ws?channel=${run.channel}&envelope=1`;
  tally.requests += 1;
  tally.sent += run.requestHead(path) + UPGRADE.length;
  const socket = new WebSocket(`${location.origin.replace('http', 'ws')}${path}`);
  await new Promise<void>((_, reject) => {
    socket.onopen = () => (tally.received += SWITCH.length);
    socket.onmessage = ({ data }) => {
      tally.received += frame(new TextEncoder().encode(data as string).length);
      run.ready();
      run.heard((JSON.parse(data as string) as { data?: unknown }).data);
    };
    socket.onclose = ({ code, reason }) => reject(new Error(`closed: ${code} ${reason}`));
    run.signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
  }).finally(() => socket.close());
}

async function headOf(path: string, signal: AbortSignal): Promise<number> {
  const response = await fetch(path, { signal, cache: 'no-store' });
  // Which ends it: it goes on otherwise.
  await response.body?.cancel();
  return answerHead(response);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.max(ms, 0));
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** What a browser's opening handshake has beyond another request, and the answer to it (RFC 6455 section 1.3). */
const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n';
const SWITCH =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n';
