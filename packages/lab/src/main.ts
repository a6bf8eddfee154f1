// The page: publishes a feed, follows it in five ways at once, and shows what each takes.

import './lab.css';
import { Tally, place, size, time } from './stats';
import { WAYS, type Message, type Way } from './ways';

const find = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const rate = find<HTMLInputElement>('rate');
const poll = find<HTMLInputElement>('poll');
const button = find<HTMLButtonElement>('run');
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
  const mine = (stop = new AbortController());
  button.textContent = 'Stop';
  document.body.classList.add('runs');
  alone(() => run(mine))
    .catch((error: unknown) => {
      if (!mine.signal.aborted) fail(mine, error instanceof Error ? error.message : String(error));
    })
    .finally(() => {
      mine.abort();
      stop = null;
      button.textContent = 'Start again';
      document.body.classList.remove('runs');
      if (status.textContent?.includes('tied')) status.textContent = 'Stopped.';
    });
});

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
