// The page: publishes a feed, follows it in five ways at once, and shows what each takes.

import './lab.css';
import { Tally, place, size, time, work } from './stats';
import { WAYS, type Message, type Way } from './ways';

const find = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const rate = find<HTMLInputElement>('rate');
const poll = find<HTMLInputElement>('poll');
const button = find<HTMLButtonElement>('run');
const cpu = find<HTMLButtonElement>('cpu');
const status = find('status');
const trouble = find('trouble');

/** A way's lane: its rope with the knots, and its figures. */
class Lane {
  tally = new Tally();
  readonly #rope: HTMLElement;
  readonly #figures = new Map<string, HTMLElement>();
  #shown = -1;

  constructor(way: Way, list: HTMLElement) {
    const lane = make('li', 'lane');
    lane.dataset.way = way.id;
    const name = make('div', 'name');
    name.append(make('h2', '', way.title), make('p', '', way.how));
    this.#rope = make('div', 'rope');
    this.#rope.setAttribute('aria-hidden', 'true');
    for (const [ms, text] of AXIS) {
      const tick = make('span', 'tick', text);
      tick.style.left = `${place(ms) * 100}%`;
      this.#rope.append(tick);
    }
    const figures = make('dl', 'figures');
    for (const [key, label] of FIGURES) {
      const pair = make('div', key);
      const value = make('dd', '', '–');
      value.dataset.figure = key;
      pair.append(make('dt', '', label), value);
      figures.append(pair);
      this.#figures.set(key, value);
    }
    lane.append(name, this.#rope, figures);
    list.append(lane);
  }

  clear(): void {
    this.tally = new Tally();
    for (const knot of this.#rope.querySelectorAll('.knot')) knot.remove();
  }

  knot(latency: number): void {
    const knot = make('i', 'knot');
    knot.style.left = `${place(latency) * 100}%`;
    this.#rope.append(knot);
    const knots = this.#rope.querySelectorAll('.knot');
    if (knots.length > KNOTS) knots[0]?.remove();
  }

  draw(): void {
    const { tally } = this;
    const state = tally.heard * 1e6 + tally.requests;
    if (state === this.#shown) return;
    this.#shown = state;
    const p50 = tally.percentile(50);
    this.#say('p50', time(p50));
    this.#say('p99', time(tally.percentile(99)));
    this.#say('requests', String(tally.requests));
    this.#say('sent', size(tally.sent));
    this.#say('received', size(tally.received));
    this.#say('each', size(tally.bytesPerMessage));
  }

  /** What a message costs the server, in microseconds. */
  cost(us: number | null): void {
    this.#say('cpu', us === null ? '–' : work(us));
  }

  #say(key: string, text: string): void {
    const value = this.#figures.get(key);
    if (value !== undefined) value.textContent = text;
  }
}

const AXIS: [number, string][] = [
  [1, '1 ms'],
  [10, '10 ms'],
  [100, '100 ms'],
  [1000, '1 s'],
];
const FIGURES: [string, string][] = [
  ['p50', 'p50'],
  ['p99', 'p99'],
  ['requests', 'requests'],
  ['sent', 'sent'],
  ['received', 'received'],
  ['each', 'per message'],
  ['cpu', 'server CPU'],
];
const KNOTS = 60;

const list = find('ways');
const lanes = WAYS.map((way) => ({ way, lane: new Lane(way, list) }));

/** Ends the run that is going on. */
let stop: AbortController | null = null;

async function run(ended: AbortController): Promise<void> {
  const { signal } = ended;
  const name = crypto.randomUUID();
  const head = await requestHead(signal);
  const waiting = new Set(WAYS.map(({ id }) => id));
  trouble.hidden = true;
  status.textContent = 'Five lines are being tied …';

  await new Promise<void>((resolve, reject) => {
    for (const { way, lane } of lanes) {
      lane.clear();
      const follow = way.follow(
        {
          channel: `lab-${name}`,
          // Read each time, so that it may be changed meanwhile.
          get poll() {
            return Number(poll.value);
          },
          signal,
          requestHead: (path) => head + path.length,
          ready: () => {
            waiting.delete(way.id);
            if (waiting.size === 0) resolve();
          },
          heard: (data) => {
            const message = data as Partial<Message> | undefined;
            if (message?.run !== name || message.n === undefined || message.t === undefined) return;
            const latency = performance.now() - message.t;
            lane.tally.hear(message.n, latency);
            lane.knot(latency);
          },
        },
        lane.tally,
      );
      follow.catch((error: unknown) => {
        if (signal.aborted) return resolve();
        fail(ended, `${way.title}: ${error instanceof Error ? error.message : String(error)}`);
        reject(error);
      });
    }
  });

  for (let n = 1; !signal.aborted; n += 1) {
    const message: Message = { run: name, n, t: performance.now() };
    const response = await fetch(`/publish?channel=lab-${name}`, {
      method: 'POST',
      body: JSON.stringify(message),
      signal,
    });
    if (!response.ok) throw new Error(`publishing: ${response.status} ${await response.text()}`);
    const behind = lanes.map(({ lane }) => n - lane.tally.last);
    const faults = lanes.reduce((sum, { lane }) => sum + lane.tally.faults, 0);
    const most = Math.max(...behind);
    status.textContent =
      `${n} ${n === 1 ? 'message' : 'messages'} published; ` +
      (most === 0 ? 'all five have all of them' : `the slowest way is ${most} behind`) +
      (faults === 0 ? '. Each came once, and in order.' : `. ${faults} came twice or out of order!`);
    await new Promise((resolve) => setTimeout(resolve, message.t + 1000 / Number(rate.value) - performance.now()));
  }
}

/** What each way costs the server, one after the other. */
async function measure(ended: AbortController): Promise<void> {
  const { signal } = ended;
  trouble.hidden = true;
  for (const { lane } of lanes) lane.cost(null);
  status.textContent = 'Measuring what publishing costs …';
  const publishing = await spent(null, signal);
  for (const { way, lane } of lanes) {
    status.textContent = `Measuring ${way.title} …`;
    lane.cost((await spent(way, signal)) - publishing);
  }
  status.textContent = `Measured: ${COUNT} messages each.`;
}

/** Microseconds of the server's for a message, with one listener by this way, or none. */
async function spent(way: Way | null, signal: AbortSignal): Promise<number> {
  const channel = `lab-${crypto.randomUUID()}`;
  const over = new AbortController();
  const stop = () => over.abort();
  signal.addEventListener('abort', stop);
  let heard = 0;
  let ready = () => {};
  let all = () => {};
  const begun = new Promise<void>((resolve) => (ready = resolve));
  const done = new Promise<void>((resolve) => (all = resolve));
  const follow = way?.follow(
    {
      channel,
      get poll() {
        return Number(poll.value);
      },
      signal: over.signal,
      requestHead: () => 0,
      ready,
      heard: () => {
        heard += 1;
        if (heard === COUNT) all();
      },
    },
    new Tally(),
  );
  const failed = new Promise<never>((_, reject) => {
    follow?.catch((error: unknown) => reject(over.signal.aborted ? new DOMException('', 'AbortError') : error));
    over.signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
  });
  // It is asked for where there is something to wait for.
  failed.catch(() => {});
  try {
    if (way !== null) await Promise.race([begun, failed]);
    const before = await used(signal);
    for (let n = 0; n < COUNT; n += 1) {
      const next = performance.now() + PACE;
      const response = await fetch(`/publish?channel=${channel}`, { method: 'POST', body: `${n}`, signal });
      if (!response.ok) throw new Error(`publishing: ${response.status} ${await response.text()}`);
      await new Promise((resolve) => setTimeout(resolve, next - performance.now()));
    }
    if (way !== null) await Promise.race([done, failed]);
    return ((await used(signal)) - before) / COUNT;
  } finally {
    signal.removeEventListener('abort', stop);
    over.abort();
  }
}

/** Microseconds of a processor that the server has used. */
async function used(signal: AbortSignal): Promise<number> {
  const response = await fetch('/dev/cpu', { signal, cache: 'no-store' });
  const { microseconds } = (await response.json()) as { microseconds: number | null };
  if (microseconds === null) throw new Error('The server’s system doesn’t tell what CPU time it uses.');
  return microseconds;
}

/** So many messages, and milliseconds between two of them. */
const COUNT = 200;
const PACE = 10;

/** Bytes of this browser's requests, without their path: the server counts one. */
async function requestHead(signal: AbortSignal): Promise<number> {
  const path = '/dev/head';
  const response = await fetch(path, { signal, cache: 'no-store' });
  const { bytes } = (await response.json()) as { bytes: number };
  return bytes - path.length;
}

/**
 * Over HTTP/1.1 a browser has six connections to a host, for all of its tabs together. A run takes five of them, so a
 * second one beside it would stand still, and neither would say why.
 */
async function alone(work: () => Promise<void>): Promise<void> {
  const [navigation] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
  // Of a page from the cache it isn't known.
  if (navigation?.nextHopProtocol === 'h2' || navigator.locks === undefined) return work();
  return navigator.locks.request('tautline.lab', { ifAvailable: true }, (lock) => {
    if (lock !== null) return work();
    throw new Error(
      'Another tab of this page is running. Over HTTP/1.1 a browser has six connections to a host for all of its tabs, and a run takes five: stop that one first.',
    );
  });
}

function fail(ended: AbortController, text: string): void {
  ended.abort();
  trouble.textContent = text;
  trouble.hidden = false;
}

find('controls').addEventListener('submit', (event) => {
  event.preventDefault();
  if (stop !== null) {
    stop.abort();
    return;
  }
  begin(run);
});

cpu.addEventListener('click', () => begin(measure));

/** Begins something that goes on until it has ended, or the button is pressed. */
function begin(work: (ended: AbortController) => Promise<void>): void {
  const mine = (stop = new AbortController());
  button.textContent = 'Stop';
  cpu.disabled = true;
  document.body.classList.add('runs');
  alone(() => work(mine))
    .catch((error: unknown) => {
      if (!mine.signal.aborted) fail(mine, error instanceof Error ? error.message : String(error));
    })
    .finally(() => {
      mine.abort();
      stop = null;
      button.textContent = 'Start again';
      cpu.disabled = false;
      document.body.classList.remove('runs');
      if (status.textContent?.endsWith('…')) status.textContent = 'Stopped.';
    });
}

const told = (input: HTMLInputElement, text: () => string) => {
  const output = input.nextElementSibling;
  input.addEventListener('input', () => output !== null && (output.textContent = text()));
};
told(rate, () => rate.value);
told(poll, () => `${(Number(poll.value) / 1000).toFixed(1)} s`);

setInterval(() => lanes.forEach(({ lane }) => lane.draw()), 100);

function make(tag: string, name = '', text = ''): HTMLElement {
  const element = document.createElement(tag);
  if (name !== '') element.className = name;
  if (text !== '') element.textContent = text;
  return element;
}
